"""From sources to packed samples on disk, on one rank, once per configuration.

With data.streaming these are the validation samples alone, and the tokenizer is trained on the beginning of the text.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerBase

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.corpus import (
    TOKENIZER_FOLDER,
    TRAIN_FILE,
    VALIDATION_FILE,
    VALIDATION_TEXTS,
    sample_features,
)
from presence_ds.data.corpus.hashing import text_hash, unit_hash
from presence_ds.data.corpus.lock import writing
from presence_ds.data.corpus.manifest import FORMAT_VERSION, MANIFEST, corpus_files, manifest_digest, read_manifest
from presence_ds.data.corpus.report import CorpusReport, SourceReport
from presence_ds.data.corpus.reuse import check_replaceable, fingerprint_of, is_prepared
from presence_ds.data.corpus.storage import ArrowWriter, bring_back, read_batches, replaced_when_complete
from presence_ds.data.rows import Document
from presence_ds.data.samples.best_fit import best_fit
from presence_ds.data.samples.one_document import one_document_per_sample
from presence_ds.data.samples.packing import Tokens, pack
from presence_ds.data.sources.noise import NoiseConfig, is_copied, shuffle_words
from presence_ds.data.sources.sources import MAX_EXAMPLES, Skipped, SourceConfig, SourceFile, find_files, read_documents
from presence_ds.data.tokenizer.tokenizer import encode, load_tokenizer, sentinel_ids, train_tokenizer
from presence_ds.errors import DataError

PACKINGS = {"concat": pack, "best_fit": best_fit, "document": one_document_per_sample}
DOCUMENT_SCHEMA = pa.schema({"id": pa.string(), "text": pa.large_string()})


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
    skipped = {part: {source.name: Skipped() for source in sources} for part, sources in _parts(config).items()}
    files, validation_files = (
        {source.name: find_files(source, streamed, skipped[part][source.name]) for source in sources}
        for part, sources in _parts(config).items()
    )
    fingerprint = fingerprint_of(config, [*files.values(), *validation_files.values()])
    if is_prepared(directory, fingerprint):
        return
    with writing(directory):
        bring_back(directory)
        if is_prepared(directory, fingerprint):  # by another process meanwhile
            return
        check_replaceable(directory)
        if not overwrite and read_manifest(directory) is not None:
            raise DataError(
                f"{directory} holds a corpus that was made otherwise: name a new folder, or give --overwrite"
            )
        _write(config, directory, files, validation_files, skipped, fingerprint)


def _write(
    config: DataConfig,
    directory: Path,
    files: dict[str, list[SourceFile]],
    validation_files: dict[str, list[SourceFile]],
    skipped: dict[str, dict[str, Skipped]],
    fingerprint: str,
) -> None:
    with replaced_when_complete(directory) as work, _progress() as progress:
        started = time.monotonic()
        builder = _Builder(config, work, progress, skipped)
        if config.streaming is None:
            for source in config.sources:
                builder.read(source, files[source.name], "train")
        for source in config.validation_sources or []:
            builder.read(source, validation_files[source.name], "validation")
        names, report = builder.write(files)
        report.seconds = round(time.monotonic() - started, 1)
        manifest = {
            "format_version": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "source_names": names,
            "report": report.to_json(),
            "config": asdict(config),
            "files": corpus_files(work),
        }
        manifest["digest"] = manifest_digest(manifest)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _parts(config: DataConfig) -> dict[str, list[SourceConfig]]:
    return {"train": config.sources, "validation": config.validation_sources or []}


class _Builder:
    """One preparation: reads sources into documents on disk, then packs those into samples."""

    def __init__(
        self, config: DataConfig, work: Path, progress: Progress, skipped: dict[str, dict[str, Skipped]]
    ) -> None:
        """``skipped``: what of every source was passed over already, by part and name."""
        assert config.sequence_length is not None  # DataConfig.validate
        assert config.packing is not None
        self.config = config
        self.row_length = config.lengths.row
        self.num_sentinels = config.objective.num_sentinels(config.sequence_length)
        self.packing = config.packing
        self.work = work
        self.progress = progress
        self.skipped = skipped
        self.reports: dict[str, dict[str, SourceReport]] = {"train": {}, "validation": {}}
        self.num_read: Counter[tuple[str, str]] = Counter()  # documents by part and source, duplicates included
        self.validation_texts: set[bytes] = set()
        for name, found in [*skipped["train"].items(), *skipped["validation"].items()]:
            if found.side_files:
                self._print(f'passed over beside the data of source "{name}": {_some(found.side_files)}')
        # Before anything is read, so that a tokenizer that cannot be loaded is not found out hours later.
        self.loaded_tokenizer = None
        if config.tokenizer.path is not None:
            self.loaded_tokenizer = load_tokenizer(config.tokenizer)
            sentinel_ids(self.loaded_tokenizer, self.num_sentinels)

    def read(self, source: SourceConfig, files: list[SourceFile], part: str) -> None:
        """Write the documents of a source of ``part`` to disk; from a training source, validation may be held out."""
        holds_out = part == "train" and self.config.validation_sources is None and self.config.validation_fraction > 0
        parts = ("train", "validation") if holds_out else (part,)
        for name in parts:
            self.reports[name][source.name] = SourceReport()
        skipped = self.reports[part][source.name].skipped = self.skipped[part][source.name]
        task = self.progress.add_task(f"read {source.name}", total=None)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(ArrowWriter(self._documents(name, source.name), DOCUMENT_SCHEMA))
                for name in parts
            }
            for document in self._documents_of(source, files, skipped):
                to = "validation" if holds_out and self._is_held_out(document) else part
                writers[to].write((document.id, document.text), len(document.text))
                self.num_read[to, source.name] += 1
                if to == "validation":
                    self.validation_texts.add(text_hash(document.text))
                self.progress.advance(task)
        self.progress.update(task, total=sum(self.num_read[name, source.name] for name in parts))
        for example in skipped.examples:
            self._print(f"skipped {example}")
        for example in skipped.files:
            self._print(f"left out {example}")
        if skipped.rows > len(skipped.examples):
            self._print(f'skipped {skipped.rows - len(skipped.examples)} more rows of source "{source.name}"')

    def _print(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def write(self, files: dict[str, list[SourceFile]]) -> tuple[list[str], CorpusReport]:
        """Write the tokenizer and both parts' packed samples; return the source names by source id, and the report.

        ``files``: of the training sources.
        """
        noise = self.config.noise
        train_names = [source.name for source in self.config.sources]
        noise_names = [] if noise is None else [noise.name]
        names = list(dict.fromkeys([*train_names, *noise_names, *self.reports["validation"]]))
        tokenizer = self.loaded_tokenizer
        if tokenizer is None:
            tokenizer = self._train_tokenizer() if self.config.streaming is None else self._train_on_beginning(files)
        tokenizer.save_pretrained(self.work / TOKENIZER_FOLDER)
        schema = sample_features(self.row_length, self.packing).arrow_schema
        with ArrowWriter(self.work / TRAIN_FILE, schema) as writer:
            for name in self.reports["train"]:
                documents = self._training_documents(name, self.reports["train"][name])
                self._pack(documents, tokenizer, writer, "train", name, names.index(name))
            if noise is not None:
                self.reports["train"][noise.name] = SourceReport()
                copies = self._shuffled_copies(noise, train_names)
                self._pack(copies, tokenizer, writer, "train", noise.name, names.index(noise.name))
        with ArrowWriter(self.work / VALIDATION_FILE, schema) as writer:
            for name in self.reports["validation"]:
                documents = self._documents_in("validation", name)
                self._pack(documents, tokenizer, writer, "validation", name, names.index(name))
        report = CorpusReport(
            sequence_length=self.row_length,
            vocab_size=len(tokenizer),
            train=self.reports["train"],
            validation=self.reports["validation"],
        )
        self._check_size(report)
        if self.config.streaming is not None:
            (self.work / VALIDATION_TEXTS).write_bytes(b"".join(sorted(self.validation_texts)))
        shutil.rmtree(self.work / "documents", ignore_errors=True)  # streaming without validation has none
        return names, report

    def _documents(self, part: str, name: str) -> Path:
        """File that holds a source's documents until they are packed; names may hold characters that paths cannot."""
        folder = self.work / "documents"
        folder.mkdir(exist_ok=True)
        return folder / f"{part}-{list(self.reports[part]).index(name)}.arrow"

    def _is_held_out(self, document: Document) -> bool:
        return unit_hash(self.config.seed, "validation", document.id) < self.config.validation_fraction

    def _documents_in(self, part: str, name: str) -> Iterator[list[Document]]:
        for batch in read_batches(self._documents(part, name)):
            yield [Document(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]

    def _training_documents(self, name: str, report: SourceReport | None = None) -> Iterator[list[Document]]:
        """Documents of a training source but those whose text validation has too, which are counted into ``report``."""
        for batch in self._documents_in("train", name):
            kept = [document for document in batch if text_hash(document.text) not in self.validation_texts]
            if report is not None:
                report.duplicates += len(batch) - len(kept)
            yield kept

    def _shuffled_copies(self, noise: NoiseConfig, names: list[str]) -> Iterator[list[Document]]:
        seed = self.config.seed
        for name in names:
            for batch in self._training_documents(name):
                yield [
                    Document(document.id, shuffle_words(document.text, seed, document.id))
                    for document in batch
                    if is_copied(noise, seed, document.id)
                ]

    def _train_tokenizer(self) -> PreTrainedTokenizerBase:
        names = [source.name for source in self.config.sources]
        total = sum(self.num_read["train", name] for name in names)
        task = self.progress.add_task("train tokenizer", total=total)

        def texts() -> Iterator[str]:
            for name in names:
                for batch in self._training_documents(name):
                    yield from (document.text for document in batch)
                    self.progress.advance(task, len(batch))

        tokenizer = train_tokenizer(self.config.tokenizer, texts(), self.num_sentinels)
        self.progress.update(task, completed=total)
        return tokenizer

    def _train_on_beginning(self, files: dict[str, list[SourceFile]]) -> PreTrainedTokenizerBase:
        assert self.config.streaming is not None
        task = self.progress.add_task("train tokenizer", total=None)
        megabytes = self.config.streaming.tokenizer_megabytes / len(self.config.sources)

        def texts() -> Iterator[str]:
            for source in self.config.sources:
                beginning = replace(source, max_megabytes=megabytes)
                for document in self._documents_of(beginning, files[source.name], Skipped()):
                    yield document.text
                    self.progress.advance(task)

        return train_tokenizer(self.config.tokenizer, texts(), self.num_sentinels)

    def _documents_of(self, source: SourceConfig, files: list[SourceFile], skipped: Skipped) -> Iterator[Document]:
        limits = (self.config.on_bad_file, round(self.config.max_document_megabytes * 1e6))
        return read_documents(source, files, self.config.max_bad_share, skipped, *limits)

    def _pack(
        self,
        batches: Iterable[list[Document]],
        tokenizer: PreTrainedTokenizerBase,
        writer: ArrowWriter,
        part: str,
        name: str,
        source_id: int,
    ) -> None:
        """Tokenize and pack one source's documents, counting them into its report."""
        report = self.reports[part][name]
        task = self.progress.add_task(f"pack {part}: {name}", total=self.num_read[part, name] or None)

        def tokenized() -> Iterator[tuple[str, Tokens]]:
            for batch in batches:
                for document, tokens in zip(batch, encode(tokenizer, [d.text for d in batch]), strict=True):
                    report.documents += 1
                    report.characters += len(document.text)
                    report.tokens += len(tokens) + 1
                    yield document.id, tokens
                self.progress.advance(task, len(batch))

        length, placed = self.row_length, 0
        for sample in PACKINGS[self.packing](tokenized(), length, tokenizer.eos_token_id):
            pieces = ([piece._asdict() for piece in sample.pieces],) if sample.pieces else ()
            row = (sample.input_ids, source_id, sample.document_id, sample.offset, *pieces)
            writer.write(row, sample.input_ids.nbytes)
            report.samples += 1
            placed += len(sample.input_ids)
        report.dropped_tokens = report.tokens - placed
        report.padding = report.samples * length - placed
        self.progress.update(task, completed=report.documents, total=report.documents)

    def _check_size(self, report: CorpusReport) -> None:
        for part, advice in (
            ("train", "give more text or a smaller sequence_length"),
            (
                "validation",
                "raise validation_fraction, give validation_sources or a smaller sequence_length, or cut long text "
                "files into more documents (documents: paragraph)",
            ),
        ):
            sources = self.reports[part].values()
            if sources and not any(source.samples for source in sources):
                raise DataError(
                    f"the {part} part has {sum(source.documents for source in sources)} documents with "
                    f"{max(source.tokens for source in sources)} tokens in its largest source, too few for one sample "
                    f"of sequence_length {report.sequence_length}: {advice}"
                )


def _some(names: list[str]) -> str:
    rest = len(names) - MAX_EXAMPLES
    return ", ".join(names[:MAX_EXAMPLES]) + (f" and {rest} more" if rest > 0 else "")


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True))
