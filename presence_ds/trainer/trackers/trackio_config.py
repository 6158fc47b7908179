"""The ``trackio`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.errors import ConfigError
from presence_ds.sections import limited
from presence_ds.trainer.trackers.config import check_installed


@dataclass
class TrackioConfig:
    """Trackio, which comes with `pip install presence-ds[trackio]`.

    Where it keeps its projects is its own business (TRACKIO_DIR, or TRACKIO_SPACE_ID for a Space of the hub, which is
    made private where it is not there yet).

    Args:
        enabled: Log to trackio what goes to metrics.jsonl, and histograms. trackio is not imported otherwise.
        project: Project of the run.
        name: Name of the run. Runs of one name in a project are one run. null: the name of the run directory.
        table_every: Optimizer steps between two tables of the samples with the highest and the lowest weights. null:
            none.
        sample_text: Put the text of these samples into the tables. false keeps it private; names of sources and
            document ids stay.
    """

    enabled: bool = False
    project: str = "presence-ds"
    name: str | None = None
    table_every: int | None = limited(None, least=1)
    sample_text: bool = True

    def validate(self, field: str) -> None:
        """Raise `ConfigError` if it is enabled and not installed, or the project is none."""
        if self.enabled:
            check_installed("trackio", field)
        if not self.project:
            raise ConfigError(f"{field}.project is empty: it must be the name of a project")
