"""Whether the corpus in a folder is the one that a configuration asks for."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.corpus import CORPUS_FILES, VALIDATION_TEXTS
from presence_ds.data.corpus.manifest import FORMAT_VERSION, read_manifest
from presence_ds.data.sources.sources import SourceFile
from presence_ds.errors import DataError


def fingerprint_of(config: DataConfig, groups: list[list[SourceFile]]) -> str:
    """Digest of everything that decides what the corpus holds; ``groups`` are the files of its sources.

    Raises:
        DataError: a file is no longer there.
    """
    settings = asdict(config)
    del settings["num_workers"], settings["prepared"]
    for source in [*settings["sources"], *(settings["validation_sources"] or [])]:
        del source["weight"]
    paths = [file.path for files in groups for file in files]
    if config.tokenizer.path is not None:
        tokenizer = Path(config.tokenizer.path).expanduser()
        paths += [tokenizer] if tokenizer.is_file() else sorted(tokenizer.glob("*"))
    try:
        stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps([FORMAT_VERSION, settings, stats]).encode()).hexdigest()


def is_prepared(directory: Path, fingerprint: str) -> bool:
    """Whether the corpus is there already."""
    manifest = read_manifest(directory)
    complete = all((directory / name).exists() for name in CORPUS_FILES)
    return complete and manifest is not None and bool(manifest["fingerprint"] == fingerprint)


def check_replaceable(directory: Path) -> None:
    """Raise `DataError` if the folder holds something else than a corpus, which would be deleted with it."""
    manifest = read_manifest(directory)
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is a file: choose an empty or new folder for the corpus")
    own = (*CORPUS_FILES, VALIDATION_TEXTS) if manifest is not None else ()
    if directory.exists() and (foreign := sorted(path.name for path in directory.iterdir() if path.name not in own)):
        raise DataError(
            f"{directory} holds {foreign[0]}, which is not part of a prepared corpus and would be deleted: choose an "
            f"empty or new folder for the corpus"
        )
