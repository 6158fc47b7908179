"""The documents of a source out of its files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from presence_ds.data.readers.checksums import check_unchanged
from presence_ds.data.readers.compression import DECOMPRESSORS
from presence_ds.data.readers.documents import BadRow, Document, Fields, UnreadableFile
from presence_ds.data.readers.json import read_json, read_jsonl
from presence_ds.data.readers.part import Part
from presence_ds.data.readers.table import read_table
from presence_ds.data.readers.text import read_text
from presence_ds.data.sources import python_packages
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.finding import SourceFile
from presence_ds.data.sources.tally import Skipped, Tally
from presence_ds.errors import DataError

TABLES = ("parquet", "arrow")  # decompressed, and so checked, before a row is read
OnBadFile = Literal["stop", "skip"]


def read_documents(
    source: SourceConfig,
    files: list[SourceFile],
    max_bad_share: float,
    skipped: Skipped,
    on_bad_file: OnBadFile = "stop",
    max_bytes: int = Fields.max_bytes,
) -> Iterator[Document]:
    """Read a source up to its size limit, counting bad rows, among them texts over ``max_bytes``, into ``skipped``.

    Raises:
        DataError: more than ``max_bad_share`` of the rows (between 0 and 1) cannot be used, or no row can; a file
            cannot be read to its end and ``on_bad_file`` is stop; or the source is smaller than its minimum.
    """
    limit = float("inf") if source.max_megabytes is None else source.max_megabytes * 1e6
    tally, size = Tally(source, files, max_bad_share, skipped), 0
    rows: Iterable[Document | BadRow]
    if source.format == "python_packages":
        modules = [(file.path, file.name) for file in files if isinstance(file.path, Path)]  # all are
        rows = python_packages.read_modules(modules, source.content, source.max_megabytes)
    else:
        rows = (row for file in files for row in read_part(source, file, Part(), skipped, on_bad_file, max_bytes))
    for row in rows:
        tally.count(row)
        if isinstance(row, BadRow):
            continue
        yield row
        size += len(row.text.encode())
        if size >= limit:
            break
    tally.check()
    if source.min_megabytes is not None and size < source.min_megabytes * 1e6:
        raise DataError(
            f'source "{source.name}" has {size / 1e6:g} megabytes of text, less than its min_megabytes '
            f"{source.min_megabytes:g}: are files missing or cut short?"
        )


def read_part(
    source: SourceConfig, file: SourceFile, part: Part, skipped: Skipped, on_bad_file: OnBadFile, max_bytes: int
) -> Iterator[Document | BadRow]:
    """Read a part of a file from its place on, which moves along; a file left out is noted in ``skipped``.

    Raises:
        DataError: the file cannot be read to its end and ``on_bad_file`` is stop.
    """
    part.strided = part.count > 1 and not _has_stretches(source, file)
    good = 0
    try:
        if on_bad_file == "skip" and file.format not in TABLES:  # with stop, a fault that shows late ends all
            check_unchanged(file.path)
        for row in _read(source, file, part, max_bytes):
            good += isinstance(row, Document)
            yield row
    except UnreadableFile as error:
        if on_bad_file == "stop":
            raise DataError(
                f"{error} ({good} good rows before that; data.on_bad_file: skip leaves the rest of such a file out)"
            ) from error
        skipped.files.append(f"{error} ({good} good rows before that)")


def _has_stretches(source: SourceConfig, file: SourceFile) -> bool:
    """Whether its reader can begin anywhere, so that no part of it has to be read for another."""
    by_lines = file.format == "jsonl" or (file.format == "text" and _documents(source) == "line")
    return file.format in TABLES or (by_lines and file.path.suffix.lower() not in DECOMPRESSORS)


def _documents(source: SourceConfig) -> Literal["file", "line", "paragraph"]:
    """What is a document of a text file; of a dataset of the hub, what is a row to ``datasets``."""
    return "line" if source.format == "hub" else source.documents


def _read(source: SourceConfig, file: SourceFile, part: Part, max_bytes: int) -> Iterator[Document | BadRow]:
    if file.format == "text":
        return read_text(file.path, file.name, _documents(source), max_bytes, part)
    fields = Fields(source.text_field, source.id_field, max_bytes)
    if file.format == "jsonl":
        return read_jsonl(file.path, file.name, fields, part)
    if file.format == "json":
        return read_json(file.path, file.name, fields, part)
    return read_table(file.path, file.name, file.format, fields, part, file.rows_before)
