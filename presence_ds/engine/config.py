"""The ``presence`` section: what is scored, how, and what the weights do with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ReweightingConfig, check_running
from presence_ds.sections import check_shape, limited


@dataclass
class PresenceConfig(ReweightingConfig):
    """Self-influence guided reweighting.

    Args:
        layers: Parameters that enter the self-influence: "all"; "first", the first block of every stack of blocks
            (what the paper scores); or a list of shell-style patterns on parameter names, such as
            ["model.layers.0.*", "*.norm.weight"]. Every parameter is trained whatever is chosen here.
        estimator: exact computes every squared gradient norm exactly; projected estimates it, unbiased, from a
            two-sided Gaussian projection of each layer's gradient and costs a few percent of a step (embeddings that
            are not tied to a head stay exact, which is cheaper).
        projection_dim: Side k of the projected gradients (k x k numbers per weight matrix and sample); the relative
            variance of one matrix's estimate is at most (1 + 2/k)^2 - 1. Unused by exact.
        loss_normalizer: What a sample's summed cross-entropy is divided by: token_mean, its own number of target tokens
            (scores then do not depend on how many it has); sum, nothing; or a number, the same for every sample, so
            that scores grow with the number of targets (229, the targets of a full sample, is the paper's constant:
            with the mean over its batch of 1024 samples it makes 234496).
        statistics: Where the normalizer's figures come from: batch, the samples of this optimizer step; running,
            earlier steps. Default: batch with one accumulation step or strategy two_pass, running otherwise.
        strategy: one_pass scores and trains in a single backward pass; two_pass scores in a pass of its own, which
            costs up to 2/3 of a step more and works with activation checkpointing, with any model, and with exact
            statistics over any number of accumulation steps.
        granularity: What a score belongs to: sample, one row of the batch; document, each document of a row, which the
            batch has to tell apart and the model to keep apart; microbatch, the micro-batch of one rank (the
            squared norm of its mean gradient); global_microbatch, one accumulation step over all ranks (the paper's
            Algorithm 2).
        alignment_dim: Numbers in a sample's sketch, from which alignments are computed; every rank keeps those of all
            its samples of an optimizer step. null: k x k for every weight matrix (with exact, the gradient itself);
            fewer cost accuracy.
        reference_decay: Decay of the running reference gradient, per reference batch.
        seed: Seed of the projection matrices, combined with each parameter's name.
        kernels: Whether losses, and projected gradients of linear layers, are computed by Triton kernels on a GPU where
            those are seen to give what PyTorch gives but for rounding.
    """

    layers: str | list[str] = "all"
    estimator: Literal["exact", "projected"] = "projected"
    projection_dim: int = limited(32, least=1)
    loss_normalizer: Literal["token_mean", "sum"] | float = limited("token_mean", above=0)
    statistics: Literal["batch", "running"] | None = None
    strategy: Literal["one_pass", "two_pass"] = "one_pass"
    granularity: Literal["sample", "document", "microbatch", "global_microbatch"] = "sample"
    alignment_dim: int | None = limited(None, least=1)
    reference_decay: float = limited(0.9, least=0, below=1)
    seed: int = 0
    kernels: bool = True

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any]) -> "PresenceConfig":
        """Check names and types of a ``presence`` section (parsed JSON or YAML) and build the configuration.

        Raises:
            ConfigError: an unknown field or a value of the wrong type, in one line.
        """
        check_shape(section, cls, "presence")
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
        super().validate(field)
        if isinstance(self.layers, str) and self.layers not in ("all", "first"):
            raise ConfigError(
                f'{field}.layers is "{self.layers}": it must be "all", "first" or a list of parameter-name patterns'
            )
        if not self.layers:
            raise ConfigError(f"{field}.layers is empty: give at least one parameter-name pattern")
        if self.reference_decay != type(self).reference_decay and not self.uses_reference and self.signal != "uniform":
            raise ConfigError(
                f"{field}.reference_decay is {self.reference_decay} with signal {self.signal}: it is for "
                f"signal alignment, and for alignment_with reference"
            )
        self._validate_comparisons(field)
        if not self.scores_apart and not self.computes_gradients:
            raise ConfigError(f"{field}.granularity is {self.granularity} with signal loss: use granularity sample")
        if self.strategy == "two_pass" and self.statistics == "running":
            raise ConfigError(
                f"{field}.statistics is running with strategy two_pass, which has the step's own: use batch or leave "
                f"it unset"
            )

    def _validate_comparisons(self, field: str) -> None:
        if self.near_duplicates is not None:
            what = "near_duplicates is set"
        elif self.aligns:
            what = "alignments are computed"
        else:
            what = f"signal is {self.signal}"
        if self.compares_gradients and self.estimator == "exact":
            raise ConfigError(f"{field}.estimator is exact and {what}, which needs projections: use projected")
        if (self.compares_gradients or self.sketches_gradients) and not self.scores_apart:
            raise ConfigError(f"{field}.granularity is {self.granularity} and {what}: use granularity sample")
        if self.near_duplicates is not None and not self.computes_gradients:
            raise ConfigError(f"{field}.near_duplicates is set with signal loss, which computes no gradients: unset it")
        if self.alignment_with == "reference" and not self.aligns:
            raise ConfigError(
                f"{field}.alignment_with is reference and no alignments are computed: set {field}.alignment true, or "
                f"leave it out (signal alignment has its reference anyway)"
            )
        if self.alignment_dim is not None and not self.sketches_gradients:
            raise ConfigError(
                f"{field}.alignment_dim is {self.alignment_dim} and no alignments are computed: set {field}.alignment "
                f"true, or leave it out"
            )

    @property
    def can_calibrate(self) -> bool:
        return super().can_calibrate and self.scores_apart and self.estimator == "projected"

    @property
    def scores_apart(self) -> bool:
        """Whether there are as many scores as samples, or documents."""
        return self.granularity in ("sample", "document")

    @property
    def compares_gradients(self) -> bool:
        """Whether every sample's gradient is compared with every other one's."""
        return self.signal == "leverage" or self.near_duplicates is not None

    @property
    def sketches_gradients(self) -> bool:
        """Whether alignments are computed, with the step or with a reference."""
        return self.aligns or self.uses_reference

    @property
    def keeps_sketches(self) -> bool:
        """Whether a gradient is looked at beyond its norm."""
        return self.compares_gradients or self.sketches_gradients or self.granularity == "global_microbatch"

    def uses_running_statistics(self, accumulation_steps: int, field: str = "presence") -> bool:
        """Whether samples are weighed by the figures of earlier steps.

        Raises:
            ConfigError: what is configured cannot be had with ``accumulation_steps``.
        """
        alone = accumulation_steps == 1 or self.strategy == "two_pass"
        if self.granularity == "global_microbatch" and accumulation_steps == 1:
            raise ConfigError(
                f"{field}.granularity is global_microbatch with gradient_accumulation_steps 1, where there is nothing "
                f"to weigh against: use 2 or more accumulation steps, or granularity sample"
            )
        if self.statistics == "batch" and not alone:
            raise ConfigError(
                f"{field}.statistics is batch with gradient_accumulation_steps {accumulation_steps}: in one pass the "
                f"first micro-step is weighed before the last is scored; use running, strategy two_pass, or 1 "
                f"accumulation step"
            )
        running = self.statistics == "running" or not alone
        if running:
            check_running(self, field)
        return running

    def fill_training_steps(self, steps: int) -> None:
        """Tell a schedule that does not state it how many optimizer steps the whole training has."""
        if self.schedule.training_steps is None and self.has_temperature:
            self.schedule.training_steps = steps
