"""The local files that a path of a source stands for.

Links are followed, to files and to folders: the cache of the hub is made of them, and many a folder on shared disks.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from presence_ds.data.readers.compression import DECOMPRESSORS
from presence_ds.errors import DataError

OTHER_COMPRESSION = frozenset(
    {".lz4", ".lzma", ".lz", ".z", ".br", ".sz", ".snappy", ".zip", ".7z", ".rar", ".gzip", ".zstd", ".bzip2"}
)
SIDE_FOLDERS = frozenset({"__MACOSX", "__pycache__", "_delta_log", "_spark_metadata", "_temporary"})
SIDE_FILE = re.compile(
    r"""(readme|licen[cs]e|copying|changelog|contributing|code_of_conduct)([-_.\ ].*)?\.(md|txt|text)
      | ((data(set)?|model)[-_]?)?card\.md
      | (dataset_(info|infos|dict)|state)\.json
      | requirements\.txt
      | (md5|sha1|sha256|sha512)(sums?)?\.txt | checksums?\.txt""",
    re.VERBOSE | re.IGNORECASE,
)
ANY_NAME = re.compile(r"[*?.]*")  # the last part of a glob that says nothing of the names it is for


@dataclass(frozen=True)
class Found:
    """What a path stands for.

    Attributes:
        root: the folder that names are relative to.
        files: sorted.
        side_files: files beside the data, which are not among ``files``.
    """

    root: Path
    files: list[Path]
    side_files: list[Path]


def find(pattern: str, endings: tuple[str, ...], where: str) -> Found:
    """The files of a file, a folder (all below it with one of ``endings``, but hidden ones) or a glob.

    A folder, and a glob that ends in ``*``, leave out side files (`SIDE_FILE`).

    Raises:
        DataError: with ``where`` in it: there is none; a link leads nowhere; a folder cannot be listed; or a file is
            compressed in a way that is not read.
    """
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isfile(path):
        _check(path, endings, where)
        return Found(Path(path).parent, [Path(path)], [])
    if os.path.isdir(path):
        found = _in_folder(path, endings, where)
        if not found.files and found.side_files:
            raise DataError(
                f"{where} is a folder in which {found.side_files[0]} and the like are the only files with a known "
                f"ending, which are taken for notes beside the data: if they are the text, name them by a glob"
            )
        if not found.files:
            raise DataError(f"{where} is a folder without any {' '.join(endings)} file: give a glob such as *.log")
        return found
    if os.path.islink(path) or not glob.has_magic(pattern):
        check_link(path, where)
        raise DataError(f"{where} does not exist")
    matches = sorted({os.path.normpath(match) for match in _matches(path, _stop(where))})
    for match in matches:
        _check(match, endings, where)
        check_link(match, where)
    names_nothing = ANY_NAME.fullmatch(os.path.basename(path)) is not None
    root = Path(path)
    while glob.has_magic(str(root)):
        root = root.parent
    found = _sorted_out(root, [match for match in matches if os.path.isfile(match)], names_nothing)
    if not found.files:
        raise DataError(f"{where} matches no file")
    return found


def each_once(found: Iterable[Found]) -> dict[Path, Path]:
    """Every file once, with the folder that its name is relative to, in the order of ``found``.

    A file that is reached in several ways, through links or by several paths, is read under its own name if that is
    among them, and otherwise under the first one.
    """
    reached: dict[str, tuple[Path, Path, bool]] = {}
    for group in found:
        root = os.path.realpath(group.root)
        for path in group.files:
            real = os.path.realpath(path)
            own = real == os.path.join(root, path.relative_to(group.root))
            if real not in reached or (own and not reached[real][2]):
                reached[real] = (path, group.root, own)
    chosen = {path: root for path, root, _ in reached.values()}
    return {path: chosen[path] for group in found for path in group.files if path in chosen}


def walk(
    root: str, onerror: Callable[[OSError], None] | None = None, left_out: frozenset[str] = SIDE_FOLDERS
) -> Iterator[tuple[str, list[str]]]:
    """`os.walk` through links too: every folder, and the sorted names of what else is in it.

    Hidden folders and those named in ``left_out`` are passed over, and so is a folder that is one of those above it,
    where links would lead round in circles.
    """
    above = {root: frozenset({_identity(root)})}
    for folder, subfolders, files in os.walk(root, onerror=onerror, followlinks=True):
        known = above.pop(folder)
        kept = []
        for name in sorted(subfolders):
            path = os.path.join(folder, name)
            if not name.startswith(".") and name not in left_out and (identity := _identity(path)) not in known:
                above[path] = known | {identity}
                kept.append(name)
        subfolders[:] = kept
        yield folder, sorted(files)


def valid_name(path: Path) -> str:
    """A path, relative as a rule, as text that can be stored: bytes of names that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def ending(path: str) -> str:
    """The ending that tells the format: that before .gz and the like."""
    stem, suffix = os.path.splitext(path)
    return os.path.splitext(stem)[1].lower() if suffix.lower() in DECOMPRESSORS else suffix.lower()


def check_link(path: str, where: str) -> None:
    """Raise `DataError`, with ``where`` in it, if ``path`` is a link that leads nowhere."""
    if os.path.islink(path) and not os.path.exists(path):
        raise DataError(
            f"{where}: {path} is a link to {os.readlink(path)}, which does not exist: bring that back, or remove the "
            f"link"
        )


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _in_folder(root: str, endings: tuple[str, ...], where: str) -> Found:
    paths = []
    for folder, names in walk(root, _stop(where)):
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith("."):
                _check(path, endings, where)
                if ending(name) in endings and os.path.isfile(path):
                    paths.append(path)
    return _sorted_out(Path(root), paths, True)


def _sorted_out(root: Path, paths: list[str], by_name: bool) -> Found:
    """``by_name``: whether side files are told by their names."""
    side_files = {path for path in paths if by_name and SIDE_FILE.fullmatch(os.path.basename(path))}
    return Found(root, sorted(Path(path) for path in paths if path not in side_files), sorted(map(Path, side_files)))


def _matches(pattern: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    """`glob.iglob`, with ``**`` for the folders of `walk`: its own goes round in circles where links do."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    rest = "/".join(parts[at + 1 :]) or "*"
    for folder in glob.iglob("/".join(parts[:at]) or "/"):
        if os.path.isdir(folder):
            for below, _ in walk(folder, onerror, frozenset()):
                yield from _matches(f"{glob.escape(below)}/{rest}", onerror)


def _check(path: str, endings: tuple[str, ...], where: str) -> None:
    """Raise `DataError` for what looks like data and cannot be read."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() in OTHER_COMPRESSION and ending(stem) in endings:
        raise DataError(
            f"{where}: {path} ends in {suffix}, a compression that is not read: compress it as "
            f"{' '.join(DECOMPRESSORS)}, or name it so if it is one of these"
        )
    if suffix == "" or ending(path) in endings:  # without an ending it may be a folder of data
        check_link(path, where)


def _stop(where: str) -> Callable[[OSError], None]:
    def stop(error: OSError) -> None:
        raise DataError(f"{where}: {error.filename} cannot be listed ({error.strerror})") from error

    return stop
