"""From sources to packed samples on disk, on one rank, once per configuration.

With data.streaming these are the validation samples alone, and the tokenizer is trained on the beginning of the text.
"""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.builder import Builder, Input
from presence_ds.data.corpus.lock import writing
from presence_ds.data.corpus.manifest import (
    FORMAT_VERSION,
    check_replaceable,
    is_prepared,
    read_manifest,
    write_manifest,
)
from presence_ds.data.corpus.storage import bring_back, replaced_when_complete
from presence_ds.errors import DataError


def prepare_corpus(config: DataConfig, directory: Path | str, *, overwrite: bool = True) -> None:
    """Read, split, tokenize and pack a corpus into ``directory``; call it on one rank, then `open_corpus` on all.

    A corpus that is already there, prepared with the same configuration from the same files (path, size and time of
    change), is kept as it is; one prepared otherwise is replaced once the new one is complete, if ``overwrite``.

    Raises:
        ConfigError: a value of the configuration cannot be used.
        DataError: a source cannot be read, holds too little, or ``directory`` holds something else, is prepared by
            another process at the same time, or read by a run while it would be replaced.
    """
    config.validate()
    directory = Path(directory).resolve()
    streamed = config.streaming is not None
    train = [Input.of(source, streamed) for source in config.sources]
    validation = [Input.of(source, streamed) for source in config.validation_sources or []]
    fingerprint = _fingerprint_of(config, [*train, *validation])
    if is_prepared(directory, fingerprint, by_document=config.document_mask):
        return
    with writing(directory):
        bring_back(directory)
        if is_prepared(directory, fingerprint, by_document=config.document_mask):  # by another process meanwhile
            return
        check_replaceable(directory)
        if not overwrite and read_manifest(directory) is not None:
            raise DataError(
                f"{directory} holds a corpus that was made otherwise: name a new folder, or replace it by presence "
                f"prepare --overwrite"
            )
        with replaced_when_complete(directory) as work, _progress() as progress:
            started = time.monotonic()
            names, report = Builder(config, train, validation, work, progress).build()
            report.seconds = round(time.monotonic() - started, 1)
            manifest = {
                "format_version": FORMAT_VERSION,
                "fingerprint": fingerprint,
                "source_names": names,
                "report": asdict(report),
                "config": asdict(config),
            }
            write_manifest(work, manifest)


def _fingerprint_of(config: DataConfig, inputs: list[Input]) -> str:
    """Digest of everything that decides what the corpus holds.

    Raises:
        DataError: a file is no longer there.
    """
    settings = asdict(config)
    del settings["num_workers"], settings["prepared"], settings["document_mask"]
    for source in [*settings["sources"], *(settings["validation_sources"] or [])]:
        del source["weight"]
        if source["language"] is None:  # written so when it could not be said
            del source["language"]
    match settings["noise"]:
        case [{"kind": "shuffled", "share": share, "name": name}]:  # written so when there was no other kind
            settings["noise"] = {"share": share, "name": name}
    paths = [file.path for given in inputs for file in given.files]
    if config.tokenizer.path is not None:
        tokenizer = Path(config.tokenizer.path).expanduser()
        paths += [tokenizer] if tokenizer.is_file() else sorted(tokenizer.glob("*"))
    try:
        stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps([FORMAT_VERSION, settings, stats]).encode()).hexdigest()


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True))
