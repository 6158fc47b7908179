"""Trackio: a local database, or a Space of the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import SAMPLES
from presence_ds.trainer.trackers.tracker import Line, Tracker, as_code
from presence_ds.trainer.trackers.trackio_config import TrackioConfig


class Trackio(Tracker):
    """A run of one name; it takes nothing back, so that steps that it has are not logged again."""

    name = "trackio"

    def __init__(self, config: TrackioConfig, directory: RunDirectory, warn: Callable[[str], None]) -> None:
        """``warn`` takes a line about what is not as it should be."""
        self.config: TrackioConfig = config
        self._name = config.name or directory.path.name
        self._warn = warn
        self._run: Any = None
        self._logged = 0  # lines, of this start
        self._before = 0  # that there were

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        import trackio

        if first_step > 1:
            self._ask()
        _take_in()
        self._forget_unsent()
        self._run = trackio.init(
            project=self.config.project,
            name=self._name,
            config=resolved,
            resume="allow",
            private=True,  # of a Space that is not there yet: without it all the world could read it
            embed=False,
            auto_log_gpu=False,  # which would be logged at steps of its own
            auto_log_cpu=False,
        )
        self._before = self._count()
        return int(self._run._next_step) - 1 if self._run._next_step else 0  # there is no public name for it

    def log(self, line: Line) -> None:
        import trackio

        shown = {name: value for name, value in line.figures.items() if value is not None and name != "step"}
        for name, histogram in line.histograms.items():
            shown[name] = trackio.Histogram(np_histogram=(histogram.counts, histogram.edges))
        if line.samples:
            columns = list(line.samples[0])
            rows = [[as_code(v) if isinstance(v, str) else v for v in row.values()] for row in line.samples]
            shown[SAMPLES] = trackio.Table(columns=columns, data=rows)
        self._run.log(shown, step=line.step)
        self._logged += 1

    def finish(self) -> None:
        self._run.finish()
        _take_in()
        lost = self._before + self._logged - self._count()
        if self._run._is_local and lost > 0:  # of which it says nothing but in a warning of Python's
            self._warn(f"trackio: {lost} of {self._logged} lines are not in its database, maybe for want of space")

    def _count(self) -> int:
        """Lines of the run in the database of this machine."""
        from trackio.sqlite_storage import SQLiteStorage

        return int(SQLiteStorage.get_log_count(self.config.project, run_id=self._run.id))

    def _ask(self) -> None:
        """Raise if a Space or server does not answer, for which trackio would begin a second run of the name."""
        from huggingface_hub.utils import get_token
        from trackio.remote_client import RemoteClient
        from trackio.utils import parse_trackio_server_url, resolve_space_id_and_server_url

        space, url = resolve_space_id_and_server_url(None, None)
        if space is not None:
            client = RemoteClient(space, hf_token=get_token())
        elif url is not None:
            address, token = parse_trackio_server_url(url)  # apart, since a failure names the address
            client = RemoteClient(address, write_token=token or os.environ.get("TRACKIO_WRITE_TOKEN"))
        else:
            return
        client.predict(project=self.config.project, api_name="/get_runs_for_project")

    def _forget_unsent(self) -> None:
        """Have lines not sent that it has kept for a Space or server: this start logs them again."""
        from trackio.sqlite_storage import SQLiteStorage

        project = self.config.project
        if (kept := SQLiteStorage.get_pending_logs(project)) is not None:
            pairs = zip(kept["ids"], kept["logs"], strict=True)
            SQLiteStorage.clear_pending_logs(project, [number for number, line in pairs if line["run"] == self._name])


def _take_in() -> None:
    """Have the database read what is beside it, as where it is on a network file system: runs are looked up in it."""
    from trackio.fragments import import_inbox_dir

    import_inbox_dir()
