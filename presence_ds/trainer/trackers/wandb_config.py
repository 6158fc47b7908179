"""The ``wandb`` section of a recipe."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class WandbConfig:
    """Weights & Biases. The key is wandb's own business (WANDB_API_KEY or `wandb login`).

    Args:
        enabled: Log to wandb what goes to metrics.jsonl. wandb is not imported otherwise.
        project: Project of the run.
        entity: User or team. null: the key's default.
        group: Group of runs that belong together. null: none.
        name: Display name. null: the name of the run directory.
        mode: auto is what WANDB_MODE says, or else online, or offline when there is no key or no network (`wandb sync`
            sends such a run later).
    """

    enabled: bool = False
    project: str = "presence-ds"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
