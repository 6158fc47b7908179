"""What the corpus is made of."""

from dataclasses import dataclass, field
from typing import Literal

from presence_ds.data.mixture import check_weights
from presence_ds.data.noise import NoiseConfig
from presence_ds.data.sources import SourceConfig
from presence_ds.data.tokenizer import TokenizerConfig
from presence_ds.errors import ConfigError


@dataclass
class DataConfig:
    """Sources, split, tokenizer and packing.

    Args:
        sources: Training sources, each packed by itself, so that a sample belongs to one source.
        validation_sources: Sources of validation documents. None: a part of every training source is held out.
        validation_fraction: Share of the documents of each source held out for validation, between 0 and 1, chosen by
            a hash of the seed and the document's id. 0: no validation. Not used with validation_sources.
        sequence_length: Tokens per sample.
        packing: How documents become samples. concat joins them, with EOS after each, and cuts every sequence_length
            tokens. best_fit keeps documents whole where they fit, several to a sample, with a little padding. document
            puts one document into a sample, and the rest of a longer one into further samples, with much padding.
        tokenizer: The tokenizer.
        noise: Word-shuffled copies added to the training documents. None: no noise.
        max_bad_share: Share of a source's rows (malformed lines, rows without text, files that are not UTF-8), between
            0 and 1, that may be skipped; above it the run stops.
        on_bad_file: What to do with a file that is damaged, cut short or otherwise unreadable: stop, or skip, which
            keeps the rows before the fault, leaves out the rest of the file (all of a compressed file with changed
            bytes), and says so in the report. skip decompresses text and JSON twice, to compare checksums first.
        max_document_megabytes: A document (or a line of jsonl) of more UTF-8 than this (10^6 bytes) is a bad row, of
            which text and jsonl hold no more than that in memory.
        seed: Seed of the split, of the noise, and of the order of samples.
        num_workers: Processes per rank that load batches. 0: the training process loads them, which is cheap.
    """

    sources: list[SourceConfig]
    validation_sources: list[SourceConfig] | None = None
    validation_fraction: float = 0.01
    sequence_length: int = 1024
    packing: Literal["concat", "best_fit", "document"] = "concat"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    noise: NoiseConfig | None = None
    max_bad_share: float = 0.01
    on_bad_file: Literal["stop", "skip"] = "stop"
    max_document_megabytes: float = 64.0
    seed: int = 0
    num_workers: int = 0

    def validate(self, field: str = "data") -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if not self.sources:
            raise ConfigError(f"{field}.sources is empty: give at least one source")
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
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigError(
                f"{field}.validation_fraction is {self.validation_fraction}: it must be at least 0 and below 1"
            )
        if self.sequence_length < 2:
            raise ConfigError(f"{field}.sequence_length is {self.sequence_length}: it must be at least 2 tokens")
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise ConfigError(f"{field}.max_bad_share is {self.max_bad_share}: it must be between 0 and 1")
        if not 1e-6 <= self.max_document_megabytes < float("inf"):
            raise ConfigError(
                f"{field}.max_document_megabytes is {self.max_document_megabytes}: it must be above 0 and finite"
            )
        if self.num_workers < 0:
            raise ConfigError(f"{field}.num_workers is {self.num_workers}: it must be 0 or more")
        self.tokenizer.validate(f"{field}.tokenizer")
        if self.noise is not None:
            self.noise.validate(f"{field}.noise")
            if self.noise.name in [source.name for source in [*self.sources, *(self.validation_sources or [])]]:
                raise ConfigError(f'{field}.noise.name "{self.noise.name}" is the name of a source: choose another')
