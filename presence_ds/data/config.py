"""What the corpus is made of."""

from dataclasses import dataclass, field
from typing import Literal

from presence_ds.data.order.mixture import check_weights
from presence_ds.data.samples.objective_config import Lengths, ObjectiveConfig
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.noise import NoiseConfig, check_noises
from presence_ds.data.streaming.config import StreamingConfig
from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.errors import ConfigError
from presence_ds.sections import check_ranges, limited

DEFAULT_LENGTH = 1024


@dataclass
class DataConfig:
    """Sources, split, tokenizer and packing.

    Args:
        sources: Training sources, each packed by itself, so that a sample belongs to one source. With prepared: the
            names of its sources, all of them, each with no more than a weight; or left out, and every source counts
            with its size.
        prepared: Folder that presence prepare has written, relative to the working directory; it is only read. What
            this section says of how samples are made has to be left out then, or be what the folder was made with.
            None: the run makes samples of its sources, in its run directory.
        validation_sources: Sources of validation documents. None: a part of every training source is held out.
        validation_fraction: Share of the documents of each source held out for validation, between 0 and 1, chosen by
            a hash of the seed and the document's id. 0: no validation. Not used with validation_sources.
        objective: What the model learns to predict.
        sequence_length: Tokens per sample; with objective span_corruption the inputs that are left of more tokens, EOS
            included. None: 1024, or what prepared was made with.
        packing: How documents become samples. concat joins them, with EOS after each, and cuts every sequence_length
            tokens. best_fit keeps documents whole where they fit, several to a sample, with a little padding. document
            puts one document into a sample, and the rest of a longer one into further samples, with much padding.
            Objective span_corruption works with concat, at the length from which sequence_length inputs are left.
            None: concat, or what prepared was made with.
        document_mask: Whether the documents that packing concat or best_fit puts into one sample are kept apart:
            attention does not cross from one into another, positions are counted from the beginning of each, and the
            first token of none is a target. For objective causal, and models that take position_ids.
        tokenizer: The tokenizer.
        streaming: Read and tokenize the training text while the model trains, and store nothing of it. Several sources
            need weights then, and validation its own sources. None: samples are made before training, and stored.
        noise: Noisy copies added to the training documents, a source for each kind. One section stands for a list of
            it. None: no noise.
        max_bad_share: Share of a source's rows (malformed lines, rows without text, files that are not UTF-8), between
            0 and 1, that may be skipped; above it the run stops.
        on_bad_file: What to do with a file that is damaged, cut short or otherwise unreadable: stop, or skip, which
            keeps the rows before the fault, leaves out the rest of the file (all of a compressed file with changed
            bytes), and says so in the report. skip decompresses text and JSON twice, to compare checksums first.
        max_document_megabytes: A document (or a line of jsonl) of more UTF-8 than this (10^6 bytes) is a bad row, of
            which text and jsonl hold no more than that in memory.
        seed: Seed of the split, of the noise, of the order of samples and of the spans that span_corruption cuts out;
            with prepared, of the last two.
        num_workers: Processes per rank that load batches. 0: the training process loads them, which is cheap unless
            text is streamed. null: 2 where there is an accelerator to keep busy (1 if lanes of streamed text do not
            divide among them), on a CPU 0.
    """

    sources: list[SourceConfig] = field(default_factory=list)
    prepared: str | None = None
    validation_sources: list[SourceConfig] | None = None
    validation_fraction: float = limited(0.01, least=0, below=1)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sequence_length: int | None = limited(None, least=2)
    packing: Literal["concat", "best_fit", "document"] | None = None
    document_mask: bool = False
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    streaming: StreamingConfig | None = None
    noise: list[NoiseConfig] | NoiseConfig | None = None
    max_bad_share: float = limited(0.01, least=0, most=1)
    on_bad_file: Literal["stop", "skip"] = "stop"
    max_document_megabytes: float = limited(64.0, least=1e-6)
    seed: int = 0
    num_workers: int | None = limited(None, least=0)

    def __post_init__(self) -> None:
        if isinstance(self.noise, NoiseConfig):
            self.noise = [self.noise]

    @property
    def noises(self) -> list[NoiseConfig]:
        """Every kind of noise there is."""
        return self.noise if isinstance(self.noise, list) else []

    @property
    def lengths(self) -> Lengths:
        """Tokens of a sample, once validated."""
        assert self.sequence_length is not None
        return self.objective.lengths(self.sequence_length)

    def validate(self, field: str = "data") -> None:
        """Fill in the defaults of what is None; `fill_from_prepared` has to come before.

        Raises:
            ConfigError: naming the first field whose value cannot be used.
        """
        check_ranges(self, field)
        if self.sequence_length is None:
            self.sequence_length = DEFAULT_LENGTH
        if self.packing is None:
            self.packing = "concat"
        if not self.sources:
            raise ConfigError(f"{field}.sources is empty: give at least one source, or {field}.prepared")
        if self.validation_sources == []:
            raise ConfigError(f"{field}.validation_sources is empty: give a source, or null to hold out documents")
        for group in ("sources", "validation_sources"):
            names = []
            for index, source in enumerate(getattr(self, group) or []):
                source.validate(f"{field}.{group}[{index}]")
                names.append(source.name)
            if doubled := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f'{field}.{group} has two sources named "{doubled[0]}": give each its own name')
        check_weights(self.sources, f"{field}.sources")
        for index, source in enumerate(self.validation_sources or []):
            if source.weight is not None:
                raise ConfigError(
                    f"{field}.validation_sources[{index}].weight is {source.weight}: it must be null, as every "
                    f"validation sample is evaluated once"
                )
        self.objective.validate(f"{field}.objective", self.sequence_length)
        if self.packing != "concat" and not self.objective.is_causal:
            raise ConfigError(
                f"{field}.packing is {self.packing} with {field}.objective.kind {self.objective.kind}, which needs "
                f"samples of one length: it must be concat"
            )
        if self.document_mask and (self.packing == "document" or not self.objective.is_causal):
            what = f"packing {self.packing}" if self.objective.is_causal else f"objective.kind {self.objective.kind}"
            raise ConfigError(
                f"{field}.document_mask is true with {field}.{what}: it is for objective causal with packing concat or "
                f"best_fit, whose samples hold several documents"
            )
        self.tokenizer.validate(f"{field}.tokenizer", self.lengths.spans)
        if self.streaming is not None:
            self._check_streaming(field)
        if self.noise is not None:
            names = [source.name for source in [*self.sources, *(self.validation_sources or [])]]
            check_noises(self.noises, names, f"{field}.noise")

    def _check_streaming(self, field: str) -> None:
        """Raise `ConfigError` for what needs samples that are stored."""
        refused = {
            "prepared": (self.prepared, "null, as a prepared corpus is not streamed"),
            "noise": (self.noise, "null: give text that is noise as a source of its own"),
        }
        for name, (value, right) in refused.items():
            if value is not None:
                raise ConfigError(f"{field}.{name} is {value} with {field}.streaming: it must be {right}")
        if self.validation_fraction > 0 and self.validation_sources is None:
            raise ConfigError(
                f"{field}.validation_fraction is {self.validation_fraction} with {field}.streaming, which holds "
                f"nothing out: give {field}.validation_sources, or 0 for no validation"
            )
        for index, source in enumerate(self.sources):
            where = f"{field}.sources[{index}]"
            if source.format == "python_packages":
                raise ConfigError(f"{where}.format is python_packages with {field}.streaming: it must be another")
            for name in ("max_megabytes", "min_megabytes"):
                if getattr(source, name) is not None:
                    raise ConfigError(
                        f"{where}.{name} is {getattr(source, name):g} with {field}.streaming, which does not know how "
                        f"much text there is: it must be null"
                    )
            if source.weight is None and len(self.sources) > 1:
                raise ConfigError(
                    f"{where}.weight is not set with {field}.streaming, which does not know the sizes of the sources: "
                    f"give every source one"
                )
