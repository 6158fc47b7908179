"""The manifest of a prepared corpus: what it was made of, and the files that it has to have."""

import hashlib
import json
from pathlib import Path
from typing import Any

from presence_ds.errors import DataError

FORMAT_VERSION = 4
MANIFEST = "corpus.json"
TOKENIZER_FOLDER = "tokenizer"
TRAIN_FILE = "train.arrow"
VALIDATION_FILE = "validation.arrow"
VALIDATION_TEXTS = "validation_texts.bin"  # with data.streaming
CORPUS_FILES = (MANIFEST, TOKENIZER_FOLDER, TRAIN_FILE, VALIDATION_FILE)


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a prepared corpus; None if ``directory`` holds none."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{directory / MANIFEST} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(
            f"{directory / MANIFEST} is damaged ({error}): remove {directory} to prepare it again"
        ) from None
    return manifest if isinstance(manifest, dict) and "fingerprint" in manifest else None


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Digest of everything else in a manifest."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def corpus_files(directory: Path) -> dict[str, int]:
    """Size in bytes of every file of a corpus but the manifest, by its path in ``directory``."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a corpus whose files are all there: ``content``, the files and the digest."""
    manifest = content | {"files": corpus_files(directory)}
    manifest["digest"] = manifest_digest(manifest)
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def check_corpus(directory: Path) -> dict[str, Any]:
    """The manifest of a corpus whose every file is there in full size; contents are not looked at.

    Raises:
        DataError: there is no prepared corpus, or one of another format, or a file is missing or of another size.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise DataError(f"{directory} holds no prepared corpus: presence prepare writes one")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{directory} was prepared by another version of this package: prepare it again")
    if manifest.get("digest") != manifest_digest(manifest):
        raise DataError(f"{directory / MANIFEST} is damaged (it does not have its digest): prepare the corpus again")
    found = corpus_files(directory)
    for name, size in manifest["files"].items():
        if found.get(name) != size:
            state = "is missing" if name not in found else f"has {found[name]} bytes of {size}"
            raise DataError(f"{directory} is no whole corpus: {name} {state}; prepare it again")
    return manifest


def is_prepared(directory: Path, fingerprint: str, *, by_document: bool = False) -> bool:
    """Whether the corpus is there already; ``by_document``: one whose rows tell their documents apart."""
    manifest = read_manifest(directory)
    complete = all((directory / name).exists() for name in CORPUS_FILES)
    found = complete and manifest is not None and bool(manifest["fingerprint"] == fingerprint)
    return found and (not by_document or _tells_documents_apart(directory / TRAIN_FILE))


def _tells_documents_apart(path: Path) -> bool:
    """Whether stored rows have ``pieces``, as those of packing concat did not in earlier versions of this package."""
    import pyarrow as pa  # what only reads manifests need not wait for it

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return "pieces" in stream.schema.names
    except (OSError, pa.ArrowException):
        return False


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
