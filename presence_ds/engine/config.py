"""The ``presence`` section: what is scored, how, and what the weights do with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.errors import ConfigError
from presence_ds.reweighting.schedule import ScheduleConfig


@dataclass
class PresenceConfig:
    """Self-influence guided reweighting.

    Args:
        layers: Parameters that enter the self-influence: "all"; "first", the first block of every stack of blocks
            (what the paper scores); or a list of shell-style patterns on parameter names, such as
            ["model.layers.0.*", "*.norm.weight"]. Every parameter is trained whatever is chosen here.
        estimator: exact computes every squared gradient norm exactly; projected estimates it, unbiased, from a
            two-sided Gaussian projection of each layer's gradient and costs a few percent of a step.
        projection_dim: Side k of the projected gradients (k x k numbers per weight matrix and sample); the relative
            variance of one matrix's estimate is at most (1 + 2/k)^2 - 1. Unused by exact.
        normalizer: How scores are made comparable before the softmax; zscore is the paper's (equation 7).
        statistics: Where the normalizer's mean and variance come from: batch, the samples of this optimizer step
            (needs one accumulation step); running, earlier steps. Default: batch with one
            accumulation step, running otherwise.
        schedule: The temperature of the softmax over training.
        strategy: one_pass scores and trains in a single backward pass.
        signal: What a sample is weighted by: self_influence, or uniform, which scores the same but weighs every
            sample alike (the baseline).
        granularity: What a score belongs to; sample is one row of the batch.
        seed: Seed of the projection matrices, combined with each parameter's name.
    """

    layers: str | list[str] = "all"
    estimator: Literal["exact", "projected"] = "projected"
    projection_dim: int = 32
    normalizer: Literal["zscore"] = "zscore"
    statistics: Literal["batch", "running"] | None = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    strategy: Literal["one_pass"] = "one_pass"
    signal: Literal["self_influence", "uniform"] = "self_influence"
    granularity: Literal["sample"] = "sample"
    seed: int = 0

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any]) -> "PresenceConfig":
        """Check names and types of a ``presence`` section (parsed JSON or YAML) and build the configuration.

        Raises:
            ConfigError: an unknown field or a value of the wrong type, in one line.
        """
        schedule = section.get("schedule", {})
        if not isinstance(schedule, Mapping):  # jsonargparse would let it pass
            raise ConfigError(
                f"presence.schedule is {schedule!r}: it must be an object with fields such as switch_step"
            )
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--presence", type=cls)
        try:
            parsed = parser.parse_object({"presence": dict(section)})
        except ArgumentError as error:
            raise ConfigError(" ".join(str(error).split())) from None
        config = parser.instantiate(parsed).presence
        assert isinstance(config, cls)
        return config

    def validate(self, field: str = "presence") -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if isinstance(self.layers, str) and self.layers not in ("all", "first"):
            raise ConfigError(
                f'{field}.layers is "{self.layers}": it must be "all", "first" or a list of parameter-name patterns'
            )
        if not self.layers:
            raise ConfigError(f"{field}.layers is empty: give at least one parameter-name pattern")
        if self.projection_dim < 1:
            raise ConfigError(f"{field}.projection_dim is {self.projection_dim}: it must be at least 1")
        self.schedule.validate(f"{field}.schedule")
