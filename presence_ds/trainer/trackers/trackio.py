"""Trackio: a local database, or a Space of the hub."""

from __future__ import annotations

from typing import Any

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import SAMPLES
from presence_ds.trainer.trackers.tracker import Line, Tracker, as_code
from presence_ds.trainer.trackers.trackio_config import TrackioConfig


class Trackio(Tracker):
    """A run of one name; it takes nothing back, so that steps that it has are not logged again."""

    name = "trackio"

    def __init__(self, config: TrackioConfig, directory: RunDirectory) -> None:
        self.config: TrackioConfig = config
        self._name = config.name or directory.path.name
        self._run: Any = None

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        import trackio

        self._run = trackio.init(
            project=self.config.project,
            name=self._name,
            config=resolved,
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # which would be logged at steps of its own
            auto_log_cpu=False,
        )
        return int(self._run._next_step) - 1 if self._run._next_step else 0  # there is no public name for it

    def log(self, line: Line) -> None:
        import trackio

        shown: dict[str, Any] = {name: value for name, value in line.figures.items() if value is not None}
        for name, histogram in line.histograms.items():
            shown[name] = trackio.Histogram(np_histogram=(histogram.counts, histogram.edges))
        if line.samples:
            columns = list(line.samples[0])
            rows = [[as_code(v) if isinstance(v, str) else v for v in row.values()] for row in line.samples]
            shown[SAMPLES] = trackio.Table(columns=columns, data=rows)
        self._run.log(shown, step=line.step)

    def finish(self) -> None:
        self._run.finish()
