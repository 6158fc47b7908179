"""The ``data.objective`` section of a recipe, and how long samples become with it."""

from dataclasses import dataclass
from typing import Literal

from presence_ds.data.samples.spans import Spans, fit_spans
from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample.

    Attributes:
        row: of the text, as it is stored.
        inputs: positions of ``input_ids``.
        targets: positions of ``labels``.
    """

    row: int
    inputs: int
    targets: int


@dataclass
class ObjectiveConfig:
    """What a model learns to predict.

    Args:
        kind: causal, every token from those before it; or span_corruption, the objective of T5 and mT5, for
            encoder-decoder models: spans cut out of the encoder's inputs, from what is left.
        noise_density: Share of the tokens that span_corruption cuts out, between 0 and 1.
        mean_span_length: Mean length of a span that is cut out, in tokens, at least 1.
    """

    kind: Literal["causal", "span_corruption"] = "causal"
    noise_density: float = limited(0.15, above=0, below=1)
    mean_span_length: float = limited(3.0, least=1)

    @property
    def is_causal(self) -> bool:
        """Whether it is for causal models, and not for encoder-decoder models."""
        return self.kind == "causal"

    def spans(self, sequence_length: int) -> Spans:
        """Of span_corruption."""
        return fit_spans(sequence_length, self.noise_density, self.mean_span_length)

    def lengths(self, sequence_length: int) -> Lengths:
        """What a sample with ``sequence_length`` input positions is made of."""
        if self.is_causal:
            return Lengths(sequence_length, sequence_length, sequence_length)
        spans = self.spans(sequence_length)
        return Lengths(spans.row, spans.inputs, spans.targets)

    def num_sentinels(self, sequence_length: int) -> int:
        """Sentinels that the tokenizer has to have."""
        return 0 if self.is_causal else self.spans(sequence_length).count

    def validate(self, field: str, sequence_length: int) -> None:
        """Raise `ConfigError` if the fields under ``field`` leave no text between spans."""
        if self.is_causal:
            return
        spans = self.spans(sequence_length)
        if spans.inputs != sequence_length or not spans.count <= min(spans.noise, spans.row - spans.noise):
            raise ConfigError(
                f"{field}.noise_density is {self.noise_density} with mean_span_length {self.mean_span_length}, which "
                f"leaves no text between the spans of a sample of {sequence_length} inputs: cut out less, or raise "
                f"data.sequence_length"
            )
