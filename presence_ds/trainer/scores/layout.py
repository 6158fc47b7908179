"""A folder of scores: one record for each row of the train part of a prepared corpus, or for each piece of a row.

SCORES/
  scores.json                the manifest, written first: which corpus, scored how
  rows-000000000000.parquet  consecutive rows of the corpus, the first in the name; a file is there when it is whole
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "scores.json"
ROWS_PER_FILE = 65_536
OF_CHECKPOINTS = ("self_influence", "loss")  # of each, where there are several
RESUME = "presence score goes on with it"

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # of the corpus' train part, from 0
        pa.field("source", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),  # the document the sample starts in
        pa.field("offset", pa.int64(), nullable=False),  # of the sample's first token in that document, in tokens
        pa.field("loss", pa.float32(), nullable=False),  # by the last checkpoint
        pa.field("targets", pa.int32(), nullable=False),
        pa.field("self_influence", pa.float32()),  # summed over the checkpoints; null where no gradients are scored
        pa.field("reference_alignment", pa.float32()),  # with the reference gradient; null without one
        pa.field("has_targets", pa.bool_(), nullable=False),  # without, there is nothing to score
    ]
)


def rows_file_name(first: int) -> str:
    """Name of the file that begins with row ``first``."""
    return f"rows-{first:012d}.parquet"


def schema_of(checkpoints: list[str], *, by_document: bool = False) -> pa.Schema:
    """`SCHEMA`, and with several checkpoints each one's self-influence and loss by its name.

    With ``by_document`` a record is of a piece, the part of a row that is of one document: there is ``piece``, the
    number of it in its row, and ``document_id`` and ``offset`` are the piece's own.
    """
    names = checkpoints if len(checkpoints) > 1 else []
    own = [pa.field(f"{kind}_{name}", pa.float32(), kind != "loss") for name in names for kind in OF_CHECKPOINTS]
    row, *others = SCHEMA
    pieces = [pa.field("piece", pa.int32(), nullable=False)] if by_document else []
    return pa.schema([row, *pieces, *others, *own])


@dataclass(frozen=True)
class Scores:
    """A complete folder of scores.

    Attributes:
        manifest: what scores.json says.
        files: every file with its first row, ascending; they cover rows 0 to ``rows`` - 1, each once.
    """

    folder: Path
    manifest: dict[str, Any]
    files: list[tuple[int, Path]]

    @property
    def rows(self) -> int:
        """Of the corpus."""
        return int(self.manifest["corpus"]["rows"])

    def parts(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """First row and ``columns`` of every file.

        Raises:
            DataError: a file cannot be read, lacks a column, or holds other rows than its name says.
        """
        for first, path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    names = file.schema_arrow.names
                    if missing := [name for name in ("row", *columns) if name not in names]:
                        raise DataError(f"{path} has no column {missing[0]}: it must be one of {', '.join(names)}")
                    table = file.read(columns=list(dict.fromkeys(["row", *columns])))
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
            expected = pa.array(np.arange(first, first + len(table)))
            if table["row"].type != pa.int64() or not table["row"].combine_chunks().equals(expected):
                raise DataError(
                    f"{path} does not hold rows {first} to {first + len(table) - 1}, each once: score them again"
                )
            yield first, table

    def digest(self) -> str:
        """Digest of the manifest and of every byte of the files."""
        found = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        for _, path in self.files:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
        return found.hexdigest()


def open_scores(folder: Path) -> Scores:
    """The scores in ``folder``, of every row of their corpus.

    Raises:
        DataError: there are none, they are of another format version, they leave rows out, they have rows twice, or
            they are of pieces of rows.
    """
    manifest = read_manifest(folder)
    if manifest.get("settings", {}).get("granularity") == "document":
        raise DataError(
            f"{folder} has scores of the documents in each row, and whole rows are needed: score them with "
            f"presence.granularity sample"
        )
    files, next_row, rows = [], 0, int(manifest["corpus"]["rows"])
    for path in sorted(folder.glob("rows-*.parquet")):
        first = _first_row(path)
        count = _count(path)
        if first < next_row:
            raise DataError(f"{path} has rows again that are in the file before it, from {first} to {next_row - 1}")
        if first > next_row:
            raise DataError(f"{folder} has no scores of rows {next_row} to {first - 1} of {rows}: {RESUME}")
        files.append((first, path))
        next_row = first + count
    if next_row > rows:
        raise DataError(f"{folder} has scores of {next_row} rows, and its corpus has {rows}: score it again")
    if next_row < rows:
        raise DataError(f"{folder} has scores of the first {next_row} rows of {rows}: {RESUME}")
    return Scores(folder, manifest, files)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What scores.json says; of each checkpoint and of the settings nothing is checked.

    Raises:
        DataError: there is none, it is damaged, or it is of another format version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{folder} holds no scores ({MANIFEST}: {error.strerror}): presence score writes them"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): score the corpus again") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path} was written by another version of this package: score the corpus again")
    corpus = manifest.get("corpus")
    kinds = {"path": str, "digest": str, "rows": int}
    if not isinstance(corpus, dict) or not all(isinstance(corpus.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path} is damaged (it does not say which corpus): score the corpus again")
    if manifest.get("part") != "train":
        raise DataError(f"{path} is of part {manifest.get('part')}: scores of the train part are needed")
    return manifest


def _first_row(path: Path) -> int:
    try:
        return int(path.name.removeprefix("rows-").removesuffix(".parquet"))
    except ValueError:
        raise DataError(f"{path} is no file of scores: take it out of the folder") from None


def _count(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}): score it again") from None
