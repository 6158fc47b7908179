"""Rows of a prepared corpus → text again: the documents that they hold whole or in part."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from presence_ds.data.corpus.rows import StoredRows, number_ids
from presence_ds.data.tokenizer.encoding import document_start
from presence_ds.errors import DataError

BLOCK_TOKENS = 1 << 20  # decoded at a time
PLACES = ("rows", "starts", "lengths", "offsets")  # of pieces


@dataclass(frozen=True)
class Pieces:
    """Consecutive tokens of documents in rows, [n] each, by row and place.

    Attributes:
        rows: int64.
        starts: int64, place in the row of the first token.
        lengths: int64.
        offsets: int64, place in the document of the first token.
        ids: of the documents.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ids: pa.LargeStringArray


def texts(
    stored: StoredRows, rows: NDArray[np.int64], packing: str, tokenizer: PreTrainedTokenizerBase, names: list[str]
) -> Iterator[str]:
    """A line of JSON for every stretch of a document without a gap that ``rows`` (ascending) hold.

    ``text``, ``id``, ``source``, ``offset`` of the first token in the document, and ``whole``: whether it is all of it.
    Documents come in the order in which they begin in the corpus.

    Raises:
        DataError: at once, if the corpus does not say where documents begin.
    """
    if packing != "document" and "pieces" not in stored.table.column_names:
        raise DataError(
            f"the corpus was written by an earlier version of this package, which did not note where the documents of "
            f"packing {packing} begin: prepare it again to have their text"
        )
    return _texts(stored, rows, tokenizer, names)


def _texts(
    stored: StoredRows, rows: NDArray[np.int64], tokenizer: PreTrainedTokenizerBase, names: list[str]
) -> Iterator[str]:
    pieces, source_ids = _pieces(stored, rows), stored.table["source_id"].to_numpy()
    order, bounds = _stretches(pieces, source_ids)
    for first, last in _blocks(pieces.lengths[order], bounds):
        own = order[bounds[first] : bounds[last]]
        ids = _tokens(stored, pieces, own)
        ends = np.cumsum(pieces.lengths[own])[bounds[first + 1 : last + 1] - bounds[first] - 1]
        stretches = [stretch.tolist() for stretch in np.split(ids, ends[:-1])]
        heads = order[bounds[first:last]]
        begins = pieces.offsets[heads] == 0
        decoded, ended = decode(tokenizer, stretches, begins.tolist())
        whole = (begins & ended).tolist()
        sources = source_ids[pieces.rows[heads]].tolist()
        documents, offsets = pieces.ids.take(pa.array(heads)).to_pylist(), pieces.offsets[heads].tolist()
        for text, document, source, offset, all_of_it in zip(decoded, documents, sources, offsets, whole, strict=True):
            line = {"text": text, "id": document, "source": names[source], "offset": offset, "whole": all_of_it}
            yield json.dumps(line, ensure_ascii=False)


def decode(
    tokenizer: PreTrainedTokenizerBase, stretches: list[list[int]], begins: list[bool]
) -> tuple[list[str], list[bool]]:
    """The text of ``stretches`` of tokens, without what is around a document, and whether each ends with one.

    ``begins`` says which of them begin with one.
    """
    start, eos = document_start(tokenizer), tokenizer.eos_token_id
    ended = [stretch[-1:] == [eos] for stretch in stretches]
    inside = []
    for stretch, begin, end in zip(stretches, begins, ended, strict=True):
        begun = len(start) if begin and stretch[: len(start)] == start else 0
        inside.append(stretch[begun : -1 if end else None])
    if not inside:  # which transformers does not take
        return [], []
    return tokenizer.batch_decode(inside, skip_special_tokens=False, clean_up_tokenization_spaces=False), ended


def _pieces(stored: StoredRows, rows: NDArray[np.int64]) -> Pieces:
    if "pieces" not in stored.table.column_names:
        ids = stored.column("document_id", rows).cast(pa.large_string()).combine_chunks()
        offsets = stored.table["offset"].to_numpy()[rows]
        return Pieces(rows, np.zeros(len(rows), np.int64), stored.tokens()[rows], offsets, ids)
    parts, done = [], 0
    for table in stored.of(rows, ["pieces"]):
        parts.append(_noted(table["pieces"].combine_chunks(), rows[done : done + len(table)]))
        done += len(table)
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PLACES}
    return Pieces(**joined, ids=pa.concat_arrays([part.ids for part in parts]))


def _noted(column: pa.ListArray, rows: NDArray[np.int64]) -> Pieces:
    """Of a packing that says where the tokens of ``rows`` are from."""
    number, flat = np.diff(column.offsets.to_numpy()), column.flatten()
    lengths = flat.field("length").to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    firsts = np.cumsum(number) - number
    begun = (ends - lengths)[firsts]  # tokens of the rows before
    starts = ends - lengths - np.repeat(begun, number)
    ids = flat.field("document_id").cast(pa.large_string())  # of all rows there may be more than 2 GiB
    return Pieces(np.repeat(rows, number), starts, lengths, flat.field("offset").to_numpy(), ids)


def _stretches(pieces: Pieces, source_ids: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order of the pieces by document and offset, and the bounds of what is without a gap in it, [stretches + 1]."""
    keys = number_ids(pa.chunked_array([pieces.ids])) * (int(source_ids.max()) + 1) + source_ids[pieces.rows]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    documents = first[inverse]  # numbered by where they begin
    order = np.lexsort((pieces.offsets, documents))
    ends = (pieces.offsets + pieces.lengths)[order]
    joins = (documents[order][1:] == documents[order][:-1]) & (pieces.offsets[order][1:] == ends[:-1])
    return order, np.concatenate([[0], np.flatnonzero(~joins) + 1, [len(order)]])


def _blocks(lengths: NDArray[np.int64], bounds: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of stretches of about `BLOCK_TOKENS` together."""
    tokens = np.concatenate([[0], np.cumsum(lengths)])[bounds]
    first, stretches = 0, len(bounds) - 1
    while first < stretches:
        last = int(np.searchsorted(tokens, tokens[first] + BLOCK_TOKENS, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _tokens(stored: StoredRows, pieces: Pieces, own: NDArray[np.int64]) -> NDArray[np.int32]:
    """The tokens of the pieces ``own``, one after the other."""
    rows, places = np.unique(pieces.rows[own], return_inverse=True)
    column = stored.column("input_ids", rows).combine_chunks()
    sizes = pc.list_value_length(column).to_numpy().astype(np.int64)
    begins = (np.cumsum(sizes) - sizes)[places] + pieces.starts[own]
    lengths = pieces.lengths[own]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return column.flatten().to_numpy()[np.repeat(begins, lengths) + within]
