"""One preparation of a corpus: sources into documents on disk, and those into packed samples."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from rich.progress import Progress
from transformers import PreTrainedTokenizerBase

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.dataset import sample_features
from presence_ds.data.corpus.manifest import TOKENIZER_FOLDER, TRAIN_FILE, VALIDATION_FILE, VALIDATION_TEXTS
from presence_ds.data.corpus.report import CorpusReport, SourceReport
from presence_ds.data.corpus.storage import ArrowWriter
from presence_ds.data.hashing import text_hash, unit_hash
from presence_ds.data.readers.documents import Document
from presence_ds.data.samples.packing import PACKINGS, Tokens
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.finding import SourceFile, find_files
from presence_ds.data.sources.noise import NoiseConfig, is_copied, total_share
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import MAX_EXAMPLES, Skipped
from presence_ds.data.tokenizer.encoding import sentinel_ids
from presence_ds.data.tokenizer.loading import load_tokenizer
from presence_ds.data.tokenizer.noise import ENCODERS, Encoder, clean
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import DataError
from presence_ds.printable import printable

DOCUMENT_SCHEMA = pa.schema({"id": pa.string(), "text": pa.large_string()})


@dataclass
class Input:
    """A source, its files, and what of it cannot be used."""

    source: SourceConfig
    files: list[SourceFile]
    skipped: Skipped

    @classmethod
    def of(cls, source: SourceConfig, streamed: bool) -> "Input":
        """What is to be read of ``source``; raises as `find_files`."""
        skipped = Skipped()
        return cls(source, find_files(source, streamed, skipped.side_files), skipped)


class Builder:
    """A preparation; its reports are filled as it goes."""

    def __init__(
        self, config: DataConfig, train: list[Input], validation: list[Input], work: Path, progress: Progress
    ) -> None:
        assert config.packing is not None  # DataConfig.validate
        self.config, self.train, self.validation = config, train, validation
        self.row_length, self.num_sentinels = config.lengths.row, config.lengths.spans
        self.packing = config.packing
        self.work = work
        self.progress = progress
        self.reports: dict[str, dict[str, SourceReport]] = {"train": {}, "validation": {}}
        self.num_read: Counter[tuple[str, str]] = Counter()  # documents by part and source, duplicates included
        self.validation_texts: set[bytes] = set()
        for given in (*train, *validation):
            if files := given.skipped.side_files:
                self._print(f'passed over beside the data of source "{given.source.name}": {_some(files)}')
        # Before anything is read, so that a tokenizer that cannot be loaded is not found out hours later.
        self.loaded_tokenizer = None
        if config.tokenizer.path is not None:
            self.loaded_tokenizer = load_tokenizer(config.tokenizer)
            sentinel_ids(self.loaded_tokenizer, self.num_sentinels)

    def build(self) -> tuple[list[str], CorpusReport]:
        """Write the corpus but for its manifest; the source names by source id, and the report."""
        if self.config.streaming is None:
            for given in self.train:
                self._read(given, "train")
        for given in self.validation:
            self._read(given, "validation")
        train_names = [source.name for source in self.config.sources]
        noise_names = [noise.source for noise in self.config.noises]
        names = list(dict.fromkeys([*train_names, *noise_names, *self.reports["validation"]]))
        tokenizer = self._train_tokenizer() if self.loaded_tokenizer is None else self.loaded_tokenizer
        tokenizer.save_pretrained(self.work / TOKENIZER_FOLDER)
        pack = partial(self._pack, names, tokenizer.eos_token_id)
        schema = sample_features(self.row_length, self.packing).arrow_schema
        with ArrowWriter(self.work / TRAIN_FILE, schema) as writer:
            for name, report in self.reports["train"].items():
                pack(self._training_documents(name), clean(tokenizer), writer, "train", name)
                report.duplicates = self.num_read["train", name] - report.documents
            for noise in self.config.noises:
                self.reports["train"][noise.source] = SourceReport()
                encoder = ENCODERS[noise.kind](tokenizer, self.num_sentinels, self.config.seed)
                pack(self._copied_documents(noise, train_names), encoder, writer, "train", noise.source)
        with ArrowWriter(self.work / VALIDATION_FILE, schema) as writer:
            for name in self.reports["validation"]:
                pack(self._documents_in("validation", name), clean(tokenizer), writer, "validation", name)
        self._check_size()
        if self.config.streaming is not None:
            (self.work / VALIDATION_TEXTS).write_bytes(b"".join(sorted(self.validation_texts)))
        shutil.rmtree(self.work / "documents", ignore_errors=True)  # streaming without validation has none
        return names, CorpusReport(self.row_length, len(tokenizer), self.reports["train"], self.reports["validation"])

    def _read(self, given: Input, part: str) -> None:
        """Write the documents of a source of ``part`` to disk; from a training source, validation may be held out."""
        seed, fraction = self.config.seed, self.config.validation_fraction
        holds_out = part == "train" and self.config.validation_sources is None and fraction > 0
        parts = ("train", "validation") if holds_out else (part,)
        source, skipped = given.source, given.skipped
        for name in parts:
            self.reports[name][source.name] = SourceReport()
        self.reports[part][source.name].skipped = skipped
        task = self.progress.add_task(printable(f"read {source.name}"), total=None)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(ArrowWriter(self._documents(name, source.name), DOCUMENT_SCHEMA))
                for name in parts
            }
            for document in self._documents_of(source, given.files, skipped):
                is_held_out = holds_out and unit_hash(seed, "validation", document.id) < fraction
                to = "validation" if is_held_out else part
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
        self.progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def _documents(self, part: str, name: str) -> Path:
        """File that holds a source's documents until they are packed; names may hold characters that paths cannot."""
        folder = self.work / "documents"
        folder.mkdir(exist_ok=True)
        return folder / f"{part}-{list(self.reports[part]).index(name)}.arrow"

    def _documents_in(self, part: str, name: str) -> Iterator[list[Document]]:
        with pa.memory_map(str(self._documents(part, name))) as file, pa.ipc.open_stream(file) as batches:
            for batch in batches:
                yield [Document(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]

    def _training_documents(self, name: str) -> Iterator[list[Document]]:
        """Documents of a training source but those whose text validation has too."""
        for batch in self._documents_in("train", name):
            yield [document for document in batch if text_hash(document.text) not in self.validation_texts]

    def _copied_documents(self, noise: NoiseConfig, names: list[str]) -> Iterator[list[Document]]:
        total, seed = total_share(self.config.noises), self.config.seed
        for name in names:
            for batch in self._training_documents(name):
                yield [document for document in batch if is_copied(noise, total, seed, document.id)]

    def _train_tokenizer(self) -> PreTrainedTokenizerBase:
        total = sum(self.num_read["train", source.name] for source in self.config.sources)
        task = self.progress.add_task("train tokenizer", total=total or None)
        texts = (document.text for document in self.progress.track(self._to_train_on(), task_id=task))
        tokenizer = train_tokenizer(self.config.tokenizer, texts, self.num_sentinels)
        self.progress.update(task, completed=total or None)
        return tokenizer

    def _to_train_on(self) -> Iterator[Document]:
        """What a tokenizer is trained on: the training documents or, of text that is streamed, those it begins with."""
        for given in self.train:
            if self.config.streaming is None:
                for batch in self._training_documents(given.source.name):
                    yield from batch
            else:
                megabytes = self.config.streaming.tokenizer_megabytes / len(self.train)
                beginning = replace(given.source, max_megabytes=megabytes)
                yield from self._documents_of(beginning, given.files, Skipped())

    def _documents_of(self, source: SourceConfig, files: list[SourceFile], skipped: Skipped) -> Iterator[Document]:
        limits = (self.config.on_bad_file, round(self.config.max_document_megabytes * 1e6))
        return read_documents(source, files, self.config.max_bad_share, skipped, *limits)

    def _pack(
        self,
        names: list[str],
        eos_id: int,
        batches: Iterable[list[Document]],
        encoder: Encoder,
        writer: ArrowWriter,
        part: str,
        name: str,
    ) -> None:
        """Tokenize and pack one source's documents, counting them into its report."""
        report = self.reports[part][name]
        task = self.progress.add_task(printable(f"pack {part}: {name}"), total=self.num_read[part, name] or None)

        def tokenized() -> Iterator[tuple[str, Tokens]]:
            for batch in batches:
                for document, tokens in zip(batch, encoder(batch), strict=True):
                    report.documents += 1
                    report.characters += len(document.text)
                    report.tokens += len(tokens) + 1
                    yield document.id, tokens
                self.progress.advance(task, len(batch))

        length, placed, source_id = self.row_length, 0, names.index(name)
        for sample in PACKINGS[self.packing](tokenized(), length, eos_id):
            pieces = ([piece._asdict() for piece in sample.pieces],) if sample.pieces else ()
            row = (sample.input_ids, source_id, sample.document_id, sample.offset, *pieces)
            writer.write(row, sample.input_ids.nbytes)
            report.samples += 1
            placed += len(sample.input_ids)
        report.dropped_tokens = report.tokens - placed
        report.padding = report.samples * length - placed
        self.progress.update(task, completed=report.documents, total=report.documents)

    def _check_size(self) -> None:
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
                    f"of sequence_length {self.row_length}: {advice}"
                )


def _some(names: list[str]) -> str:
    rest = len(names) - MAX_EXAMPLES
    return ", ".join(names[:MAX_EXAMPLES]) + (f" and {rest} more" if rest > 0 else "")
