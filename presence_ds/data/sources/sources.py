"""Where documents come from: local files, datasets of the hub, or the Python packages of this environment."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal, NoReturn

from presence_ds.data.readers import (
    DECOMPRESSORS,
    DEFAULT_MAX_BYTES,
    File,
    HubFile,
    Part,
    check_unchanged,
    read_json,
    read_jsonl,
    read_text,
)
from presence_ds.data.rows import BadRow, Document, UnreadableFile
from presence_ds.data.sources import hub, local_files, python_packages
from presence_ds.errors import ConfigError, DataError
from presence_ds.sections import limited

ENDINGS = {
    "text": (".txt", ".text", ".md"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow",),
}
TABLES = ("parquet", "arrow")  # decompressed, and so checked, before a row is read
MAX_EXAMPLES = 5  # bad rows kept word for word; the others are only counted
EARLY_STOP_ROWS = 1000  # stop reading when not one of this many first rows can be used


@dataclass
class SourceConfig:
    """One source of documents. Every sample carries the name of its source into the scores and the statistics.

    Args:
        name: Name of the source in metrics and score records.
        path: File, folder or glob ("texts/**/*.jsonl"), or a list of them, relative to the working directory. A folder
            stands for every file below it with a known ending, links followed, but for hidden ones and notes such as
            README.md. With hub: a name on the hub ("allenai/c4"), or a folder.
            Not used by python_packages.
        format: text; jsonl, an object per line; json, an array of objects, an object of arrays, or an object per line;
            parquet; arrow, stream or file; hub, whatever load_dataset of datasets loads, downloaded once into its
            cache, or, with data.streaming, parquet, JSON, text or arrow files on the hub, read over the network; or
            python_packages, English prose and code out of the Python packages installed in this environment (nothing
            is downloaded, nothing imported). None: inferred from the files' endings (.txt .text .md, .jsonl .ndjson,
            .json, .parquet .pq, .arrow). Each may be compressed as a whole, which .gz, .zst, .bz2 or .xz at the end
            says.
        subset: Which of the configurations of a dataset of the hub ("en"). None: the only one, or its default.
        split: Which split of a dataset of the hub.
        revision: Branch, tag or commit of a dataset of the hub. None: the newest. With data.streaming, what it is when
            the run begins.
        documents: What one document is in a text file: the whole file, each line, or each paragraph (paragraphs are
            separated by blank lines).
        text_field: Field (jsonl, json) or column (parquet, arrow, hub) that holds the text.
        id_field: Field or column that holds the document's id, a string or an integer. None: the file's name and the
            line or row.
        content: What python_packages takes: the docstrings of each module, or its code without the docstrings.
        max_megabytes: Stop reading this source after so much text (10^6 bytes of UTF-8). None: read all of it.
        min_megabytes: Stop the run if this source has less text than that (10^6 bytes of UTF-8), say because files are
            missing. None: no minimum.
        weight: Share of the training samples that come from this source, relative to the weights of the other sources;
            for all training sources or for none. A source is read again, in another order, when it is through, however
            far the others are. None: every source counts with its size, and all are through at once.
    """

    name: str
    path: str | list[str] | None = None
    format: Literal["text", "jsonl", "json", "parquet", "arrow", "hub", "python_packages"] | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    documents: Literal["file", "line", "paragraph"] = "file"
    text_field: str = "text"
    id_field: str | None = None
    content: Literal["docstrings", "code"] = "docstrings"
    max_megabytes: float | None = limited(None, above=0, most=inf)  # all of it
    min_megabytes: float | None = limited(None, above=0)
    weight: float | None = limited(None, above=0)

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        if not self.name:
            raise ConfigError(f"{field}.name is empty: give the source a name")
        if self.format == "python_packages" and self.path is not None:
            raise ConfigError(f"{field}.path is set: python_packages reads this environment and takes no path")
        if self.format != "python_packages" and not self.path:
            raise ConfigError(f"{field}.path is not set: give a file, a folder, a glob or a list of them")
        self._validate_hub(field)
        if self.min_megabytes is not None and self.min_megabytes > (self.max_megabytes or float("inf")):
            raise ConfigError(
                f"{field}.min_megabytes is {self.min_megabytes:g}, above max_megabytes {self.max_megabytes:g}, where "
                f"reading stops: it must be at most that"
            )

    def _validate_hub(self, field: str) -> None:
        if self.format == "hub":
            if not isinstance(self.path, str):
                raise ConfigError(f"{field}.path is {self.path}: with format hub it must be one name or folder")
            if not re.fullmatch(r"\w+(\.\w+)*", self.split):
                raise ConfigError(
                    f"{field}.split is {self.split!r}: it must name a split; max_megabytes takes a part of one"
                )
            return
        for name, value, default in (
            ("subset", self.subset, None),
            ("split", self.split, "train"),
            ("revision", self.revision, None),
        ):
            if value != default:
                raise ConfigError(f"{field}.{name} is {value} and format is {self.format}: it is for format hub alone")


@dataclass
class Skipped:
    """What of a source could not be used.

    Args:
        rows: Number of rows.
        examples: The first few of these, each as "file line: reason".
        files: Files of which the end, or all, was left out, each as "file: reason, and how many rows it gave".
        side_files: Files beside the data, such as README.md, which a folder does not stand for.
    """

    rows: int = 0
    examples: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    side_files: list[str] = field(default_factory=list)


OnBadFile = Literal["stop", "skip"]


@dataclass(frozen=True)
class SourceFile:
    """An input file, the part of its path that enters document ids, and the format it is read in.

    Attributes:
        rows_before: rows of the files that make up one table with this one and come before it.
    """

    path: File
    name: str
    format: str
    rows_before: int = 0


def find_files(source: SourceConfig, streamed: bool = False, skipped: Skipped | None = None) -> list[SourceFile]:
    """List the input files of a source in the order they are read; a dataset of the hub is downloaded for it.

    Args:
        streamed: whether a dataset given by its name on the hub is left there, and its files are read over the network.
        skipped: takes the side files that are passed over.

    Raises:
        DataError: a file or folder does not exist or cannot be read, a glob matches nothing, a link leads nowhere, a
            format cannot be told, or a dataset of the hub cannot be loaded.
    """
    if streamed and is_remote(source):
        return [SourceFile(file, f"{file.dataset}/{file.path}", _format(source, file)) for file in _hub_files(source)]
    if source.format == "python_packages":
        return [SourceFile(path, name, "python_packages") for path, name in python_packages.find_modules()]
    if source.format == "hub":
        assert isinstance(source.path, str)  # SourceConfig.validate
        loaded = hub.load_files(source.name, source.path, source.subset, source.split, source.revision)
        name = hub.dataset_name(source.path)
        return [SourceFile(path, name, "arrow", rows_before) for path, rows_before in loaded]
    where = f'source "{source.name}": path '
    patterns = [source.path] if isinstance(source.path, str) else source.path
    assert patterns is not None  # SourceConfig.validate
    endings = ENDINGS[source.format] if source.format else tuple(e for known in ENDINGS.values() for e in known)
    groups = [local_files.find(pattern, endings, where + pattern) for pattern in patterns]
    found = local_files.each_once(groups)
    if skipped is not None:
        skipped.side_files += [str(path) for group in groups for path in group.side_files if path not in found]
    common = Path(os.path.commonpath(list(found.values())))
    return [SourceFile(path, local_files.valid_name(path.relative_to(common)), _format(source, path)) for path in found]


def is_remote(source: SourceConfig) -> bool:
    """Whether the source is a dataset given by its name on the hub, and not a folder."""
    return source.format == "hub" and isinstance(source.path, str) and not hub.is_folder(source.path)


def _hub_files(source: SourceConfig) -> list[HubFile]:
    assert isinstance(source.path, str)  # SourceConfig.validate
    return hub.list_files(source.name, source.path, source.subset, source.split, source.revision)


def _format(source: SourceConfig, path: File) -> str:
    if source.format is not None and source.format != "hub":
        return source.format
    for name, endings in ENDINGS.items():
        if local_files.ending(str(path)) in endings:
            return name
    if isinstance(path, HubFile):
        raise DataError(
            f'source "{source.name}": {path} cannot be read over the network, as parquet, JSON, text and arrow are: '
            f"leave data.streaming out, and the dataset is downloaded and loaded by datasets"
        )
    raise DataError(f'source "{source.name}": the ending of {path} tells no format: set format to {", ".join(ENDINGS)}')


def read_documents(
    source: SourceConfig,
    files: list[SourceFile],
    max_bad_share: float,
    skipped: Skipped,
    on_bad_file: OnBadFile = "stop",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Iterator[Document]:
    """Read a source up to its size limit, counting bad rows, among them texts over ``max_bytes``, into ``skipped``.

    Raises:
        DataError: more than ``max_bad_share`` of the rows (between 0 and 1) cannot be used, or no row can; a file
            cannot be read to its end and ``on_bad_file`` is stop; or the source is smaller than its minimum.
    """
    limit = float("inf") if source.max_megabytes is None else source.max_megabytes * 1e6
    rows = size = 0
    for row in _rows(source, files, skipped, on_bad_file, max_bytes):
        rows += 1
        if isinstance(row, BadRow):
            skipped.rows += 1
            if len(skipped.examples) < MAX_EXAMPLES:
                skipped.examples.append(f"{row.location}: {row.reason}")
            if skipped.rows == rows == EARLY_STOP_ROWS:
                break
            continue
        yield row
        size += len(row.text.encode())
        if size >= limit:
            break
    if skipped.rows == rows or skipped.rows > max_bad_share * rows:
        raise_too_many(source, files, rows, max_bad_share, skipped)
    if source.min_megabytes is not None and size < source.min_megabytes * 1e6:
        raise DataError(
            f'source "{source.name}" has {size / 1e6:g} megabytes of text, less than its min_megabytes '
            f"{source.min_megabytes:g}: are files missing or cut short?"
        )


def raise_too_many(
    source: SourceConfig, files: list[SourceFile], rows: int, max_bad_share: float, skipped: Skipped
) -> NoReturn:
    """Raise `DataError`: of ``rows`` rows, those that were skipped are too many, or all."""
    if rows == 0 and skipped.files:
        raise DataError(f'source "{source.name}": none of its files can be read; the first is {skipped.files[0]}')
    if rows == 0:
        place = str(files[0].path) if len(files) == 1 else f"its {len(files)} files"
        raise DataError(f'source "{source.name}" is empty: there is no document in {place}')
    first = f"the first is {skipped.examples[0]}"
    if skipped.rows == rows:
        raise DataError(f'source "{source.name}": none of the first {rows} rows can be used; {first}')
    raise DataError(
        f'source "{source.name}": {skipped.rows} of {rows} rows cannot be used, more than max_bad_share '
        f"{max_bad_share:g} allows; {first}"
    )


def _rows(
    source: SourceConfig, files: list[SourceFile], skipped: Skipped, on_bad_file: OnBadFile, max_bytes: int
) -> Iterator[Document | BadRow]:
    if source.format == "python_packages":
        yield from python_packages.read_modules(
            [(f.path, f.name) for f in files if isinstance(f.path, Path)], source.content, source.max_megabytes
        )
        return
    for file in files:
        yield from read_part(source, file, Part(), skipped, on_bad_file, max_bytes)


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
    fields = (source.text_field, source.id_field, max_bytes)
    if file.format == "jsonl":
        return read_jsonl(file.path, file.name, *fields, part)
    if file.format == "json":
        return read_json(file.path, file.name, *fields, part)
    from presence_ds.data.readers.table import read_table  # with pyarrow, which settings do without

    kind: Literal["parquet", "arrow"] = "parquet" if file.format == "parquet" else "arrow"
    return read_table(file.path, file.name, kind, *fields, rows_before=file.rows_before, part=part)
