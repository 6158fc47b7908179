"""The text of samples that a run has recorded, out of the corpus that it was prepared in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from presence_ds.data.corpus.manifest import MANIFEST, check_corpus
from presence_ds.data.corpus.opening import load_corpus_tokenizer
from presence_ds.data.corpus.rows import StoredRows
from presence_ds.data.corpus.texts import decode
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.run_directory.layout import RunDirectory

MOST_TOKENS_PER_CHARACTER = 4  # of UTF-8, with a token for each byte


class Sample(NamedTuple):
    """A sample, or with granularity document a piece of one, as score records name it."""

    source: str
    document_id: str
    offset: int  # of the first token in that document, in tokens


class Place(NamedTuple):
    """Where the tokens of a sample, or piece, are: a row of the corpus, and which part of that."""

    row: int
    start: int
    length: int | None  # None: all that comes


class SampleTexts:
    """Finds samples of the train part of a prepared corpus, which stays on disk, and decodes them.

    The text is what the model was given. Special tokens stand in it where a sample goes from one document to the next,
    and not at the beginning and the end of it. Of objective span_corruption it is the text before spans are cut out,
    which are others each time that a sample is read.
    """

    def __init__(self, corpus_folder: Path, trust_remote_code: bool = False, *, by_document: bool = False) -> None:
        """Open the corpus in ``corpus_folder``.

        Args:
            trust_remote_code: as of the recipe's data.tokenizer.
            by_document: whether records are of the pieces of documents in each row (granularity document).

        Raises:
            DataError: there is no corpus, it is damaged, it is of another version, or its tokenizer cannot be loaded.
        """
        self._names: list[str] = check_corpus(corpus_folder)["source_names"]
        self._tokenizer = load_corpus_tokenizer(corpus_folder, trust_remote_code)
        self._table = StoredRows(corpus_folder).table
        self._by_piece = by_document and "pieces" in self._table.column_names

    @classmethod
    def of_run(cls, run_dir: Path) -> SampleTexts:
        """The texts of the run in ``run_dir``, which may be in progress.

        Raises:
            ConfigError: there is no run in it.
            DataError: its text was streamed, its corpus is gone, or as of the constructor.
        """
        directory = RunDirectory(run_dir)
        if not directory.recipe.is_file():
            raise ConfigError(f"run_dir is {run_dir}: there is no run in it (it has no {directory.recipe.name})")
        if directory.setting("data", "streaming") is not None:
            raise DataError(f"{run_dir} has streamed its text, of which nothing is stored")
        folder = _corpus_folder(directory)
        tokenizer = directory.setting("data", "tokenizer") or {}
        trust = isinstance(tokenizer, dict) and tokenizer.get("trust_remote_code") is True
        return cls(folder, trust, by_document=directory.setting("presence", "granularity") == "document")

    def find(self, samples: Sequence[Sample], characters: int) -> list[str | None]:
        """The beginning of each one's text, at most so many ``characters`` and … where it goes on.

        None where the corpus has no such sample.

        Raises:
            DataError: the corpus cannot be read any more.
        """
        try:
            places = self._find(samples)
            most = MOST_TOKENS_PER_CHARACTER * (characters + 1)
            found = [(sample, self._tokens(places[sample], most)) for sample in samples if sample in places]
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"the corpus cannot be read ({' '.join(str(error).split())})") from None
        texts, _ = decode(self._tokenizer, [ids for _, ids in found], [sample.offset == 0 for sample, _ in found])
        by_sample = {
            sample: text if len(text) <= characters else text[:characters] + "…"
            for (sample, _), text in zip(found, texts, strict=True)
        }
        return [by_sample.get(sample) for sample in samples]

    def _find(self, samples: Sequence[Sample]) -> dict[Sample, Place]:
        """Of those that the corpus has. Ids and offsets are looked up by arrow; what has one of each is looked at."""
        if not samples:
            return {}
        table = self._table
        if self._by_piece:
            pieces = pc.list_flatten(table["pieces"])
            ids, offsets = pc.struct_field(pieces, "document_id"), pc.struct_field(pieces, "offset")
        else:
            ids, offsets = table["document_id"], table["offset"]
        asked = set(samples)
        known = pa.array(sorted({sample.document_id for sample in asked}), ids.type)
        begins = pa.array(sorted({sample.offset for sample in asked}), offsets.type)
        both = pc.and_(pc.is_in(ids, value_set=known), pc.is_in(offsets, value_set=begins))
        indices = pc.indices_nonzero(both)
        numbers = indices.to_numpy().astype(np.int64)
        rows, before = self._rows(numbers)
        sources = table["source_id"].to_numpy()[rows].tolist()
        candidates = zip(sources, ids.take(indices).to_pylist(), offsets.take(indices).to_pylist(), strict=True)
        places: dict[Sample, Place] = {}
        for (source, document, offset), row, piece in zip(candidates, rows.tolist(), before.tolist(), strict=True):
            sample = Sample(self._names[source], document, offset)
            if sample in asked and sample not in places:
                places[sample] = self._place(row, piece)
        return places

    def _rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of what is numbered over all rows, and how many pieces of each row come before it, int64 [n]."""
        if not self._by_piece:
            return numbers, np.zeros_like(numbers)
        ends = np.cumsum(pc.list_value_length(self._table["pieces"]).to_numpy(), dtype=np.int64)
        rows = np.searchsorted(ends, numbers, side="right")
        return rows, numbers - np.concatenate([[0], ends])[rows]

    def _place(self, row: int, piece: int) -> Place:
        if not self._by_piece:
            return Place(row, 0, None)
        lengths = [one["length"] for one in self._table["pieces"][row].as_py()]
        return Place(row, sum(lengths[:piece]), lengths[piece])

    def _tokens(self, place: Place, most: int) -> list[int]:
        ids = self._table["input_ids"][place.row].values[place.start :]
        length = len(ids) if place.length is None else place.length
        tokens: list[int] = ids[: min(length, most)].to_pylist()
        return tokens


def _corpus_folder(directory: RunDirectory) -> Path:
    """Where the corpus of a run is.

    A relative path of the recipe is one of the folder that it was trained in, most often one above the run: the nearest
    that has a corpus there goes before the working directory, which may have another under that name.
    """
    prepared = directory.setting("data", "prepared")
    if prepared is None:
        if not directory.corpus.is_dir():
            raise DataError(f"{directory.path} has no {directory.corpus.name}/: copy it there to see text")
        return directory.corpus
    path = Path(prepared).expanduser()
    folders = [folder / path for folder in (*directory.path.parents, Path())]
    found = [folder for folder in folders if (folder / MANIFEST).is_file()]
    if not found:
        raise DataError(
            f"{path}, data.prepared of the run in {directory.path}, is not there: bring it back to see text"
        )
    return found[0]
