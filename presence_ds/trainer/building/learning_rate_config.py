"""The ``lr_schedule`` section of a recipe."""

from dataclasses import dataclass
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class LearningRateConfig:
    """How the learning rate moves from step to step, as a factor of optimizer.lr.

    Args:
        kind: After the warm-up: cosine or linear decay to min_ratio at the last step; inverse_sqrt,
            sqrt(warmup_steps / step), never below min_ratio; wsd (warm-up, stable, decay), 1 until the last decay_steps
            steps, over which it falls to min_ratio; or constant.
        warmup_steps: Optimizer steps over which the factor rises linearly to 1 (step s has s / warmup_steps).
            inverse_sqrt needs at least 1.
        min_ratio: Lowest factor after the warm-up, between 0 and 1.
        decay_steps: Steps of wsd's decay. null: a tenth of all steps. Not for the other kinds, which decay throughout.
        decay_shape: How wsd decays: linear, cosine, or sqrt (1 - sqrt(share of the decay that is over)).
    """

    kind: Literal["cosine", "linear", "inverse_sqrt", "wsd", "constant"] = "cosine"
    warmup_steps: int = limited(100, least=0)
    min_ratio: float = limited(0.1, least=0, most=1)
    decay_steps: int | None = limited(None, least=1)
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"

    def validate(self, field: str, training_steps: int) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if self.warmup_steps > training_steps:
            raise ConfigError(
                f"{field}.warmup_steps is {self.warmup_steps}: it must be at most {training_steps}, the number of "
                f"training steps"
            )
        if self.kind == "inverse_sqrt" and self.warmup_steps < 1:
            raise ConfigError(f"{field}.warmup_steps is {self.warmup_steps}: inverse_sqrt needs at least 1")
        if self.kind != "wsd":
            if self.decay_steps is not None:
                raise ConfigError(
                    f"{field}.decay_steps is {self.decay_steps} with kind {self.kind}: it must be null, or kind wsd"
                )
            return
        decay_steps = self.wsd_decay_steps(training_steps)
        default = " by default" if self.decay_steps is None else ""
        if decay_steps + self.warmup_steps > training_steps:
            raise ConfigError(
                f"{field}.decay_steps is {decay_steps}{default}: it must be, with {field}.warmup_steps "
                f"{self.warmup_steps}, at most the {training_steps} training steps"
            )

    def wsd_decay_steps(self, training_steps: int) -> int:
        """Steps of wsd's decay in a run of ``training_steps``."""
        return max(1, training_steps // 10) if self.decay_steps is None else self.decay_steps
