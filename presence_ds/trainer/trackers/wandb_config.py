"""The ``wandb`` section of a recipe."""

from dataclasses import dataclass
from typing import Literal

from presence_ds.sections import limited


@dataclass
class WandbConfig:
    """Weights & Biases. The key is wandb's own business (WANDB_API_KEY or `wandb login`).

    Args:
        enabled: Log to wandb what goes to metrics.jsonl, and histograms. wandb is not imported otherwise.
        project: Project of the run.
        entity: User or team. null: the key's default.
        group: Group of runs that belong together. null: none.
        name: Display name. null: the name of the run directory.
        mode: auto is what WANDB_MODE says, or else online, or offline when there is no key or no network (`wandb sync`
            sends such a run later).
        table_every: Optimizer steps between two tables of the samples with the highest and the lowest weights. null:
            none.
        sample_text: Put the text of these samples into the tables. false keeps it private; names of sources and
            document ids stay.
        alerts: Send alerts on spikes, samples that are not finite, skipped steps and stalls.
        stall_minutes: How long no step may be logged before an alert is sent.
    """

    enabled: bool = False
    project: str = "presence-ds"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    table_every: int | None = limited(None, least=1)
    sample_text: bool = True
    alerts: bool = False
    stall_minutes: float = limited(30.0, above=0)
