"""A folder of scores while it is made (`presence_ds.trainer.scores.layout`), and what else is in it then.

SCORES/
  scores.json                   what was scored, by what, and how; written first
  rows-000000000000.parquet     the rows from that number on; a file has its name only when it is whole
  corpus/                       the prepared corpus, where the recipe has no data.prepared
  reference-NAME.npy            with a reference: its mean gradient by the checkpoint NAME
  parts/NAME/rows-…-….parquet   what the checkpoint NAME has told of these rows, until their file is whole
  logs/                         what ranks other than 0 print
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from presence_ds.data.corpus.storage import LEFTOVER_SECONDS, unfinished
from presence_ds.errors import ConfigError
from presence_ds.trainer.checkpoint.manifest import sync
from presence_ds.trainer.scores.layout import MANIFEST, read_manifest, rows_file_name


class ScoresFolder:
    """Paths of one folder of scores, and what is done to it as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.manifest = self.path / MANIFEST
        self.corpus = self.path / "corpus"
        self.parts = self.path / "parts"
        self.logs = self.path / "logs"

    def file(self, rows: range) -> Path:
        """What is known of ``rows``."""
        return self.path / rows_file_name(rows.start)

    def part(self, checkpoint: str, rows: range) -> Path:
        """What a checkpoint has told of ``rows``, of one file or less."""
        return self.parts / checkpoint / f"rows-{rows.start:012d}-{rows.stop:012d}.parquet"

    def told(self, checkpoint: str, stretches: Iterable[range]) -> list[list[range]]:
        """Of each stretch the parts that a checkpoint has told of, without a gap from its first row on.

        They may overlap: two processes may have been at it at once, and end parts by their own clocks.
        """
        paths = (self.parts / checkpoint).glob("rows-*.parquet")
        known = [range(*map(int, path.stem.split("-")[1:])) for path in paths]
        found = []
        for rows in stretches:
            parts, first = [], rows.start
            while first < rows.stop and (over := [part for part in known if first in part]):
                parts.append(max(over, key=lambda part: part.stop))
                first = parts[-1].stop
            found.append(parts)
        return found

    def read(self, checkpoint: str, rows: range) -> list[pa.Table]:
        """What a checkpoint has told of ``rows``, each once, in their order."""
        (parts,) = self.told(checkpoint, [rows])
        found, first = [], rows.start
        for part in parts:
            here = (pc.field("row") >= first) & (pc.field("row") < rows.stop)
            found.append(pq.read_table(self.part(checkpoint, part), filters=here))
            first = part.stop
        return found

    def reference(self, checkpoint: str) -> Path:
        """The mean gradient of the reference."""
        return self.path / f"reference-{checkpoint}.npy"

    def check(self) -> None:
        """Raise `ConfigError` if the folder cannot be made, or holds something else than scores."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output is {self.path}: it is a file; name a folder")
        try:
            content = sorted(os.listdir(self.path)) if self.path.exists() else []
        except OSError as error:
            raise ConfigError(f"output is {self.path}: it cannot be read ({error.strerror})") from None
        own = {self.corpus.name, self.logs.name}
        foreign = [name for name in content if name not in own and not name.startswith((".corpus.", f".{MANIFEST}."))]
        if foreign and not self.manifest.is_file():
            raise ConfigError(f"output is {self.path}: it holds {foreign[0]} and no scores; name a new folder")

    def claim(self, manifest: dict[str, Any]) -> None:
        """Have the folder hold scores of ``manifest``; several processes may do so at once.

        Raises:
            ConfigError: it holds others.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(manifest, indent=2) + "\n"
        create_once(self.manifest, lambda path: path.write_text(text, encoding="utf-8"))
        self.check_same(manifest)
        for leftover in [*self.path.glob(".*.partial"), *self.parts.glob("*/.*.partial")]:
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                    leftover.unlink()

    def check_same(self, manifest: dict[str, Any]) -> None:
        """Raise `ConfigError` for the first thing in which the scores in the folder differ from those of ``manifest``.

        Only what both have is compared; nothing is, if there are no scores yet.
        """
        if not self.manifest.is_file():
            return
        theirs = read_manifest(self.path)
        for field, ours in _values(manifest):
            there = _lookup(theirs, field)
            if there is not _MISSING and not _same(ours, there):
                raise ConfigError(
                    f"output is {self.path}: its scores were made with {field} {json.dumps(there)}, and this is "
                    f"{json.dumps(ours)}: give the same, or name a new folder"
                )

    def clear_parts(self, whole: Sequence[range], names: list[str]) -> None:
        """Remove what the checkpoints ``names`` have told of stretches that have a file."""
        for name in names:
            for path in (self.parts / name).glob("rows-*.parquet"):
                first = int(path.stem.split("-")[1])
                if any(first in rows for rows in whole):
                    path.unlink(missing_ok=True)


def stretches(rows: int, rows_per_file: int) -> list[range]:
    """The rows of every file."""
    return [range(start, min(start + rows_per_file, rows)) for start in range(0, rows, rows_per_file)]


def create_once(path: Path, write: Callable[[Path], Any]) -> None:
    """Make a file that ``write`` fills, whole and on the disk, unless it is there: the first of several wins.

    Where the file system knows no links, the last of those wins that find none.
    """
    with unfinished(path) as temporary:
        write(temporary)
        sync([temporary])
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            if not path.exists():
                os.replace(temporary, path)
    sync([path.parent])


def write_table(table: pa.Table, path: Path) -> None:
    """Write ``table`` to ``path``, whole and on the disk; another process that writes the same does no harm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        sync([temporary])
        os.replace(temporary, path)
    sync([path.parent])


_MISSING = object()


def _values(manifest: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that has to be the same, by its path; those that say most first."""
    yield from ((f"settings.{name}", value) for name, value in manifest["settings"].items())
    yield "checkpoints", manifest["checkpoints"]
    for name in ("rows_per_file", "part", "corpus.digest", "corpus.rows"):
        if (value := _lookup(manifest, name)) is not _MISSING:
            yield name, value


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same; of a checkpoint that has a digest wherever it has been moved."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("digest") is not None:
        return {**ours, "path": None} == {**theirs, "path": None}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return all(map(_same, ours, theirs))
    return bool(ours == theirs)


def _lookup(manifest: dict[str, Any], field: str) -> Any:
    found: Any = manifest
    for name in field.split("."):
        if not isinstance(found, dict) or name not in found:
            return _MISSING
        found = found[name]
    return found
