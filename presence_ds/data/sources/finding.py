"""The files of a source: local ones, those of a dataset of the hub, or the modules of this environment."""

import os
from dataclasses import dataclass
from pathlib import Path

from presence_ds.data.readers.hub_file import File, HubFile
from presence_ds.data.sources import hub, local_files, python_packages
from presence_ds.data.sources.config import SourceConfig
from presence_ds.errors import DataError

ENDINGS = {
    "text": (".txt", ".text", ".md"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow",),
}


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


def find_files(source: SourceConfig, streamed: bool = False, side_files: list[str] | None = None) -> list[SourceFile]:
    """List the input files of a source in the order they are read; a dataset of the hub is downloaded for it.

    Args:
        streamed: whether a dataset given by its name on the hub is left there, and its files are read over the network.
        side_files: takes those beside the data that are passed over.

    Raises:
        DataError: a file or folder does not exist or cannot be read, a glob matches nothing, a link leads nowhere, a
            format cannot be told, or a dataset of the hub cannot be loaded.
    """
    if source.format == "python_packages":
        return [SourceFile(path, name, "python_packages") for path, name in python_packages.find_modules()]
    if source.format == "hub":
        folder = hub.folder_of(source)
        if streamed and folder is None:
            listed = hub.list_files(source)
            return [SourceFile(file, f"{file.dataset}/{file.path}", _format(source, file)) for file in listed]
        name = str(source.path) if folder is None else folder.resolve().name
        return [SourceFile(path, name, "arrow", rows_before) for path, rows_before in hub.load_files(source)]
    patterns = [source.path] if isinstance(source.path, str) else source.path
    assert patterns is not None  # SourceConfig.validate
    endings = ENDINGS[source.format] if source.format else tuple(e for known in ENDINGS.values() for e in known)
    groups = [local_files.find(pattern, endings, f'source "{source.name}": path {pattern}') for pattern in patterns]
    found = local_files.each_once(groups)
    if side_files is not None:
        side_files += [str(path) for group in groups for path in group.side_files if path not in found]
    common = Path(os.path.commonpath(list(found.values())))
    return [SourceFile(path, local_files.valid_name(path.relative_to(common)), _format(source, path)) for path in found]


def is_remote(source: SourceConfig) -> bool:
    """Whether the source is a dataset given by its name on the hub, and not a folder."""
    return source.format == "hub" and hub.folder_of(source) is None


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
