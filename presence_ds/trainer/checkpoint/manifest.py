"""manifest.json of a checkpoint: what it is of, and the size and checksum of every file.

The checksum is SHA-256, which processors compute in hardware at the speed of a fast disk and every system has a tool
for (``sha256sum``). The manifest ends with the checksum of its own text, so that a flipped byte in it is seen too.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError, PresenceError
from presence_ds.trainer.run_directory.layout import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 22  # bytes read at once
THREADS = 4  # files hashed at the same time by a rank; hashlib lets go of the interpreter


class DamagedError(PresenceError):
    """A checkpoint is not what was written; the message says what is wrong with which file."""


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 (hexadecimal) of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is of.

    Attributes:
        step: optimizer step after which it was written.
        world_size: number of ranks that wrote it.
        setup: what another run must have in common to go on from it (`resuming.describe_setup`).
        parameters: name and shape of every parameter of the model.
        files: every file but the manifest, by its path in the checkpoint.
        versions: of the libraries that wrote it, for whoever reads it.
        recipe: what the recipe came to (`changed_recipe.recipe_values`); None of an earlier version.
    """

    step: int
    world_size: int
    setup: dict[str, Any]
    parameters: dict[str, list[int]]
    files: dict[str, FileRecord]
    versions: dict[str, str]
    recipe: dict[str, Any] | None = None

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files.values())


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Write ``manifest`` durably into the folder ``checkpoint``."""
    write_atomically(checkpoint / MANIFEST, _render({"format": FORMAT, **asdict(manifest)}))


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of the folder ``checkpoint``.

    Raises:
        DamagedError: it is missing, or its text is not what was written.
        ConfigError: it is intact and of a format that this version does not know.
    """
    try:
        text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
        content = json.loads(text)
        stated = content.pop("sha256")
    except OSError as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{MANIFEST} is cut short or overwritten") from None
    if _render(content) != text or stated != _digest(content):
        raise DamagedError(f"{MANIFEST} does not have its checksum")
    if content.pop("format") != FORMAT:
        raise ConfigError(f"{checkpoint / MANIFEST} is of another format: resume with the version that wrote it")
    content["files"] = {name: FileRecord(**record) for name, record in content["files"].items()}
    return Manifest(**content)


def _render(content: dict[str, Any]) -> str:
    return json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def record_file(path: Path) -> FileRecord:
    """Size and checksum of a file as it can be read now."""
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(size, digest.hexdigest())


def damage(checkpoint: Path, manifest: Manifest, rank: int = 0, world_size: int = 1) -> list[str]:
    """What is wrong with the files that it falls to ``rank`` to read: every file falls to one of ``world_size`` ranks.

    A rank reads the files that it wrote, which its machine may still hold in memory.
    """
    mine = [name for name in manifest.files if owner(name) % world_size == rank]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: _file_damage(checkpoint / name, manifest.files[name]), mine)
        return [f"{name} {problem}" for name, problem in zip(mine, found, strict=True) if problem is not None]


def _file_damage(path: Path, expected: FileRecord) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"has {size} bytes of {expected.bytes}"
        return None if record_file(path) == expected else "does not have its checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def owner(name: str) -> int:
    """The rank that wrote a file of a checkpoint, from its name; 0 for what is written once for all ranks."""
    match = re.search(r"(?:pp_rank_|trainer_rank_|offloaded_tensors/rank)(\d+)", name)
    return int(match.group(1)) if match else 0


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that have a manifest and every file in it in full size, oldest first; checksums are not looked at."""
    return [path for path in checkpoint_folders(folder) if _is_complete(path)]


def checkpoint_folders(folder: Path) -> list[Path]:
    """Every ``step_*`` folder, intact or not, oldest first."""
    return sorted(path for path in folder.glob("step_*") if path.name.removeprefix("step_").isdigit())


def _is_complete(checkpoint: Path) -> bool:
    try:
        files = read_manifest(checkpoint).files
        return all((checkpoint / name).stat().st_size == file.bytes for name, file in files.items())
    except (PresenceError, OSError):
        return False


def sync(paths: Iterable[Path]) -> None:
    """Have the system write files or folders through to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
