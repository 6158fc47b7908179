"""scores/: loss, self-influence, alignment and weight of every sample this run has seen, in parquet.

With granularity document there is a row for every document of a sample, in their order.

The first of every `RANKS_PER_FILE` ranks writes what all of them have. A file ends with a checkpoint, never spans one,
and has its final name only when it is complete; what a crash leaves of an open file, or loses with a rank, lies after
the last checkpoint and is written again by the resumed run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.ranks.process_group import Neighbours
from presence_ds.trainer.ranks.rank_log import print_warning
from presence_ds.trainer.run_directory.layout import score_file_name
from presence_ds.trainer.transfer.host_copy import HostCopy

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer

RANKS_PER_FILE = 128
ROWS_KEPT = 8192  # of a rank in memory, on average over the ranks, before they are collected

# Columns that are worth a dictionary: one of numbers that are all different makes them a quarter larger.
REPEATED = [field.name for field in SCHEMA if not pa.types.is_floating(field.type)]

OPTIONAL = ("scores", "vocabulary_scores", "momentum_alignment")  # of `Presence`, where they are computed


class ScoreRecords(Callback):
    """Collects one record per sample, or document.

    Ranks collect theirs together. So when they do depends on nothing but what all of them know, which is not how many
    documents one of them has.
    """

    def __init__(self, folder: Path, rank: int, neighbours: Neighbours, source_names: list[str]) -> None:
        """``neighbours`` are the ranks that share a file with ``rank``."""
        self._rank = rank
        self._sources = pa.array(source_names, type=pa.string())
        self._neighbours = neighbours
        self._file = RecordFile(folder, neighbours.ranks) if neighbours.is_first else None
        self._seen: list[tuple[Any, ...]] = []  # in the step in progress
        self._found: list[list[Any]] = []  # of their samples, [b] each
        self._steps: list[
            Callable[[], pa.RecordBatch]
        ] = []  # made when they are collected: what is found is on its way
        self._everywhere = 0  # records of all ranks that are not collected yet

    def on_micro_step(self, trainer: Trainer, batch: Batch) -> None:
        presence = trainer.engine.presence
        assert presence.losses is not None
        assert presence.has_targets is not None
        self._seen.append(origins(batch, presence.by_document))
        self._found.append([presence.losses, presence.has_targets, *(getattr(presence, name) for name in OPTIONAL)])

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        presence = trainer.engine.presence
        assert presence.weights is not None
        columns = [None if parts[0] is None else torch.cat(parts).float() for parts in zip(*self._found, strict=True)]
        found = HostCopy(torch.stack([column for column in columns if column is not None]))
        there = [column is not None for column in columns]
        known = tuple(  # copies: what ranks have gathered would be kept for a view of it
            None if values is None else values.to(torch.float32, copy=True)
            for values in (presence.alignments, presence.reference_alignments, presence.weights)
        )
        self._steps.append(partial(self._rows, trainer.step, self._seen, found, there, known))
        self._seen, self._found = [], []
        self._everywhere += presence.statistics.get("samples", 0)  # not known of a step that fp16 overflowed in
        if self._everywhere >= ROWS_KEPT * trainer.ranks.world_size:
            self._collect()

    def _rows(
        self,
        step: int,
        seen: list[tuple[Any, ...]],
        found: HostCopy,
        there: list[bool],
        known: tuple[torch.Tensor | None, ...],
    ) -> pa.RecordBatch:
        """The records of a step: of its samples, the columns ``found`` that are ``there``, and what is on the host."""
        positions, sources, documents, offsets = zip(*seen, strict=True)
        sizes = [len(part) for part in positions]
        total = sum(sizes)
        nothing = pa.nulls(total, pa.float32())
        columns = iter(found.values.numpy())
        losses, have_targets, scores, vocabulary, momentum = (next(columns) if one else nothing for one in there)
        alignments, references, weights = (nothing if values is None else values.numpy() for values in known)
        rows: list[Any] = [
            np.full(total, step, np.int32),
            np.repeat(np.arange(len(sizes), dtype=np.int16), sizes),
            np.full(total, self._rank, np.int32),
            np.concatenate(positions),
            pa.DictionaryArray.from_arrays(np.concatenate(sources), self._sources),
            [document for part in documents for document in part],
            np.concatenate(offsets),
            losses,
            scores,
            alignments,
            references,
            vocabulary,
            momentum,
            weights,
            have_targets.astype(bool),
        ]
        return pa.record_batch(rows, schema=SCHEMA)

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self._steps:  # one for every step, on every rank
            self._collect()
        if self._file is not None:
            self._file.finish()

    on_train_end = on_stop = on_checkpoint

    def close(self) -> None:
        """After an error the other ranks may take part in nothing any more: what was not collected is left out."""
        if self._file is not None:
            self._file.finish()

    def _collect(self) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCHEMA) as stream:
            for rows in self._steps:
                stream.write_batch(rows())
        parts = self._neighbours.collect(sink.getvalue().to_pybytes())
        if parts is not None and self._file is not None:
            table = pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in parts])
            self._file.write(table)
        self._steps, self._everywhere = [], 0


def origins(batch: Batch, by_document: bool) -> tuple[Any, ...]:
    """Position in the micro-batch, source, document and offset of what there is a record of: its samples, or pieces."""
    sources, offsets = batch["source_ids"].cpu().numpy().astype(np.int16), batch["offsets"].cpu().numpy()
    positions = np.arange(len(sources), dtype=np.int32)
    if not by_document:
        return positions, sources, batch["document_ids"], offsets
    rows = np.repeat(positions, [len(pieces) for pieces in batch["pieces"]])
    documents, offsets, _ = zip(*(piece for pieces in batch["pieces"] for piece in pieces), strict=True)
    return rows, sources[rows], documents, np.array(offsets, dtype=np.int64)


class RecordFile:
    """The records of ``ranks`` on the disk. What cannot be written is said and lost, and the next file is tried."""

    def __init__(self, folder: Path, ranks: list[int]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._ranks = ranks[0], ranks[-1]
        self._steps = (0, 0)
        self._file: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None

    @property
    def _path(self) -> Path:
        """Of the file that is open. What begins with an underscore is passed over by what reads all of a folder."""
        return self._folder / f"_{score_file_name(self._ranks, self._steps[0])}.open"

    def write(self, table: pa.Table) -> None:
        """Append records of whole optimizer steps, of each rank in their order."""
        first, last = table["step"][0].as_py(), table["step"][-1].as_py()
        self._steps = (first if self._writer is None else self._steps[0]), last
        try:
            if self._writer is None:
                self._file = open(self._path, "wb")  # noqa: SIM115 -- closed by finish()
                self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd", use_dictionary=REPEATED)
            self._writer.write_table(table)
        except OSError as error:
            self._lose(error)

    def finish(self) -> None:
        """Give the file that is open its final name, on the disk."""
        if self._writer is None or self._file is None:
            return
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._path, self._folder / score_file_name(self._ranks, *self._steps))
        except OSError as error:
            self._lose(error)
        self._writer = self._file = None

    def _lose(self, error: OSError) -> None:
        print_warning(
            f"score records of steps {self._steps[0]} to {self._steps[1]}, ranks {self._ranks[0]} to {self._ranks[1]}, "
            f"are lost: {self._path} cannot be written ({error.strerror})"
        )
        for close in (self._writer, self._file):  # both would write what they hold
            if close is not None:
                with suppress(OSError, pa.ArrowException):
                    close.close()
        with suppress(OSError):
            self._path.unlink()
        self._writer = self._file = None
