"""A prepared corpus, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from presence_ds.data.corpus.hashing import TEXT_HASH_BYTES
from presence_ds.data.corpus.manifest import MANIFEST, check_corpus
from presence_ds.data.corpus.report import CorpusReport
from presence_ds.data.samples.objective import Objective, make_objective
from presence_ds.data.samples.objective_config import ObjectiveConfig
from presence_ds.data.tokenizer.tokenizer import load_tokenizer
from presence_ds.data.tokenizer.tokenizer_config import TokenizerConfig
from presence_ds.errors import DataError

TOKENIZER_FOLDER = "tokenizer"
TRAIN_FILE = "train.arrow"
VALIDATION_FILE = "validation.arrow"
VALIDATION_TEXTS = "validation_texts.bin"  # with data.streaming
IDENTITY = ("source_id", "document_id", "offset")  # of a sample
CORPUS_FILES = (MANIFEST, TOKENIZER_FOLDER, TRAIN_FILE, VALIDATION_FILE)


class Sample(TypedDict, total=False):
    """One packed sample.

    ``input_ids`` and ``labels`` are int64 [sequence_length] and equal (transformers models shift labels themselves) but
    for padding, where ``labels`` is −100; ``attention_mask``, int64 [sequence_length], is 0 there and 1 elsewhere, and
    is absent in a corpus that has no padding. With span corruption ``labels``, int64 [targets], are the decoder's
    outputs. ``source_ids`` indexes `Corpus.source_names`; ``document_ids`` is the
    document the sample starts in, and ``offsets`` the position of its first token there, in tokens.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    source_ids: int
    document_ids: str
    offsets: int


class PackedDataset(Dataset[Sample]):
    """The samples of one part of a corpus, from ``rows`` of `sample_features`.

    Loaders read draws (`Order.draws`): draw i is row i % len, read for epoch i // len, in which the objective may make
    something else of it. A single index is that of a row, as it is in epoch 0.
    """

    def __init__(self, rows: datasets.Dataset, part: str, objective: Objective) -> None:
        self.rows = rows
        self.part = part
        self.objective = objective
        self._arrays = rows.select_columns(["input_ids", *IDENTITY]).with_format("numpy")

    def of_sources(self, source_ids: list[int]) -> "PackedDataset":
        """The samples of these sources alone."""
        kept = np.flatnonzero(np.isin(self._arrays["source_id"][:], source_ids))
        return PackedDataset(self.rows.select(kept), self.part, self.objective)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, draws: list[int]) -> list[Sample]:
        """A batch at once, which torch's loader prefers where it exists: several times cheaper than row by row."""
        rows = self._arrays[[draw % len(self) for draw in draws]]
        inputs = self.objective(rows, np.array(draws, dtype=np.int64))
        samples: list[Sample] = []
        for index, (source_id, document_id, offset) in enumerate(zip(*(rows[name] for name in IDENTITY), strict=True)):
            sample: Any = {name: values[index] for name, values in inputs.items()}
            sample |= {"source_ids": int(source_id), "document_ids": str(document_id), "offsets": int(offset)}
            samples.append(sample)
        return samples


def sample_features(row_length: int, packing: str) -> datasets.Features:
    """The columns of a stored sample; only concat fills every row, and only best_fit says where each token is from."""
    features = {
        "input_ids": datasets.List(datasets.Value("int32"), length=row_length if packing == "concat" else -1),
        "source_id": datasets.Value("int32"),
        "document_id": datasets.Value("string"),
        "offset": datasets.Value("int64"),
    }
    if packing == "best_fit":
        piece = {"document_id": datasets.Value("string"), "offset": datasets.Value("int64")}
        features["pieces"] = datasets.List({**piece, "length": datasets.Value("int32")})
    return datasets.Features(features)


@dataclass
class Corpus:
    """A prepared corpus.

    Args:
        train: Training samples.
        validation: Validation samples; empty when none were asked for.
        source_names: Names by source id.
        tokenizer: The tokenizer the samples were made with.
        report: What was read, kept, dropped and skipped.
        validation_texts: With data.streaming, `text_hash` of every validation document.
    """

    train: PackedDataset
    validation: PackedDataset
    source_names: list[str]
    tokenizer: PreTrainedTokenizerBase
    report: CorpusReport
    validation_texts: frozenset[bytes] = frozenset()


def open_corpus(directory: Path | str, trust_remote_code: bool = False, seed: int = 0) -> Corpus:
    """Open what `prepare_corpus` wrote; every rank may do so.

    Args:
        directory: Where it was written.
        trust_remote_code: Whether the tokenizer may run code of its own, as in `TokenizerConfig`.
        seed: Seed of an objective that draws numbers.

    Raises:
        DataError: there is no prepared corpus, or one of another format, or it is damaged, or its tokenizer needs to
            be trusted.
    """
    directory = Path(directory)
    manifest = check_corpus(directory)
    tokenizer = load_corpus_tokenizer(directory, trust_remote_code)
    config = manifest["config"]

    def part(name: str, file: str) -> PackedDataset:
        objective = make_objective(
            ObjectiveConfig(**config["objective"]),
            config["sequence_length"],
            config["packing"],
            tokenizer,
            seed,
            name,
        )
        return PackedDataset(_map_rows(directory / file), name, objective)

    return Corpus(
        train=part("train", TRAIN_FILE),
        validation=part("validation", VALIDATION_FILE),
        source_names=manifest["source_names"],
        tokenizer=tokenizer,
        report=CorpusReport.from_json(manifest["report"]),
        validation_texts=_read_hashes(directory / VALIDATION_TEXTS),
    )


def load_corpus_tokenizer(directory: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer that the corpus in ``directory`` was made with."""
    path = str(directory / TOKENIZER_FOLDER)
    return load_tokenizer(TokenizerConfig(path=path, trust_remote_code=trust_remote_code))


def _read_hashes(path: Path) -> frozenset[bytes]:
    if not path.exists():
        return frozenset()
    hashes = path.read_bytes()
    return frozenset(hashes[start : start + TEXT_HASH_BYTES] for start in range(0, len(hashes), TEXT_HASH_BYTES))


def _map_rows(path: Path) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_file(str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())}): prepare the corpus again") from None
