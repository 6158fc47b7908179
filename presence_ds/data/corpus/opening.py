"""A prepared corpus, memory-mapped."""

from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerBase

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.dataset import PackedDataset
from presence_ds.data.corpus.manifest import (
    TOKENIZER_FOLDER,
    TRAIN_FILE,
    VALIDATION_FILE,
    VALIDATION_TEXTS,
    check_corpus,
)
from presence_ds.data.corpus.prepared import noise_shares
from presence_ds.data.corpus.report import CorpusReport
from presence_ds.data.hashing import TEXT_HASH_BYTES
from presence_ds.data.samples.objective import make_objective
from presence_ds.data.samples.objective_config import ObjectiveConfig
from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.data.tokenizer.loading import load_tokenizer
from presence_ds.errors import DataError


@dataclass
class Corpus:
    """A prepared corpus.

    Args:
        train: Training samples.
        validation: Validation samples; empty when none were asked for.
        source_names: Names by source id.
        tokenizer: The tokenizer the samples were made with.
        report: What was read, kept, dropped and skipped.
        noise_shares: As `presence_ds.data.corpus.prepared.noise_shares`.
        validation_texts: With data.streaming, `text_hash` of every validation document.
    """

    train: PackedDataset
    validation: PackedDataset
    source_names: list[str]
    tokenizer: PreTrainedTokenizerBase
    report: CorpusReport
    noise_shares: dict[str, float] = field(default_factory=dict)
    validation_texts: frozenset[bytes] = frozenset()


def open_for(data: DataConfig, directory: Path) -> Corpus:
    """`open_corpus`, its samples as ``data`` says: whoever forgets one of these fields has other samples in silence."""
    return open_corpus(directory, data.tokenizer.trust_remote_code, data.seed, document_mask=data.document_mask)


def open_corpus(
    directory: Path | str, trust_remote_code: bool = False, seed: int = 0, *, document_mask: bool = False
) -> Corpus:
    """Open what `prepare_corpus` wrote; every rank may do so.

    Args:
        directory: Where it was written.
        trust_remote_code: Whether the tokenizer may run code of its own, as in `TokenizerConfig`.
        seed: Seed of an objective that draws numbers.
        document_mask: Whether the documents of a sample are kept apart, as in `DataConfig`.

    Raises:
        DataError: there is no prepared corpus, or one of another format, or it is damaged, or its tokenizer needs to
            be trusted, or it does not tell the documents of a sample apart.
    """
    directory = Path(directory)
    manifest = check_corpus(directory)
    tokenizer = load_corpus_tokenizer(directory, trust_remote_code)
    config = manifest["config"]

    def part(name: str, file: str) -> PackedDataset:
        path, kind = directory / file, ObjectiveConfig(**config["objective"])
        length, packing = config["sequence_length"], config["packing"]
        objective = make_objective(kind, length, packing, tokenizer, seed, name, document_mask=document_mask)
        try:
            rows = datasets.Dataset.from_file(str(path))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({' '.join(str(error).split())}): prepare the corpus again") from None
        if objective.reads_pieces and "pieces" not in rows.column_names:
            raise DataError(
                f"data.document_mask is true, and {path} was written by an earlier version of this package, which did "
                f"not note where the documents of packing {packing} begin: prepare the corpus again"
            )
        return PackedDataset(rows, name, objective)

    return Corpus(
        train=part("train", TRAIN_FILE),
        validation=part("validation", VALIDATION_FILE),
        source_names=manifest["source_names"],
        tokenizer=tokenizer,
        report=TypeAdapter(CorpusReport).validate_python(manifest["report"]),
        noise_shares=noise_shares(manifest, str(directory)),
        validation_texts=_read_hashes(directory / VALIDATION_TEXTS),
    )


def load_corpus_tokenizer(directory: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer that the corpus in ``directory`` was made with."""
    path = str(directory / TOKENIZER_FOLDER)
    return load_tokenizer(TokenizerConfig(path=path, trust_remote_code=trust_remote_code))


def _read_hashes(path: Path) -> frozenset[bytes]:
    hashes = path.read_bytes() if path.exists() else b""
    return frozenset(hashes[start : start + TEXT_HASH_BYTES] for start in range(0, len(hashes), TEXT_HASH_BYTES))
