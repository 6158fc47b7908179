"""scores/: loss, self-influence and weight of every sample this run has seen, in parquet.

Each rank writes its own files. A file ends with a checkpoint, never spans one, and has its final name only when it is
complete; what a crash leaves of an open file lies after the last checkpoint and is written again by the resumed run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.run_directory import score_file_name

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer

ROWS_PER_GROUP = 65536

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),  # optimizer step, counted from 1
        pa.field("micro_step", pa.int16(), nullable=False),  # within the optimizer step, from 0
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # within the micro-batch, from 0
        pa.field("source", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),  # the document the sample starts in
        pa.field("offset", pa.int64(), nullable=False),  # of the sample's first token in that document, in tokens
        pa.field("loss", pa.float32(), nullable=False),
        pa.field("self_influence", pa.float32()),  # null with signal loss
        pa.field("weight", pa.float32(), nullable=False),  # over all ranks and micro-steps of a step they sum to 1
        pa.field("has_targets", pa.bool_(), nullable=False),  # without, a sample is left out: its weight is 0
    ]
)


class ScoreRecords(Callback):
    """Collects one record per sample and writes them in row groups."""

    def __init__(self, folder: Path, rank: int, source_names: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._rank = rank
        self._sources = pa.array(source_names, type=pa.string())
        self._micro_steps: list[tuple[Batch, torch.Tensor, torch.Tensor | None, torch.Tensor]] = []
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._first_step: int | None = None
        self._last_step = 0
        self._writer: pq.ParquetWriter | None = None

    def on_micro_step(self, trainer: Trainer, batch: Batch) -> None:
        presence = trainer.engine.presence
        assert presence.losses is not None
        assert presence.has_targets is not None
        self._micro_steps.append((batch, presence.losses, presence.scores, presence.has_targets))

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        batches, losses, scores, have_targets = zip(*self._micro_steps, strict=True)
        self._micro_steps = []
        sizes = [len(batch["document_ids"]) for batch in batches]
        total = sum(sizes)
        weights = trainer.engine.presence.weights
        assert weights is not None
        columns: list[Any] = [
            np.full(total, trainer.step, np.int32),
            np.repeat(np.arange(len(sizes), dtype=np.int16), sizes),
            np.full(total, self._rank, np.int32),
            np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
            pa.DictionaryArray.from_arrays(
                torch.cat([batch["source_ids"] for batch in batches]).to(torch.int16).cpu().numpy(), self._sources
            ),
            [document for batch in batches for document in batch["document_ids"]],
            torch.cat([batch["offsets"] for batch in batches]).cpu().numpy(),
            torch.cat(losses).float().cpu().numpy(),
            pa.nulls(total, pa.float32()) if scores[0] is None else torch.cat(scores).float().cpu().numpy(),
            weights.float().cpu().numpy(),
            torch.cat(have_targets).cpu().numpy(),
        ]
        self._batches.append(pa.record_batch(columns, schema=SCHEMA))
        self._rows += total
        self._first_step = self._first_step or trainer.step
        self._last_step = trainer.step
        if self._rows >= ROWS_PER_GROUP:
            self._write_row_group()

    def on_checkpoint(self, trainer: Trainer) -> None:
        self._finish_file()

    def close(self) -> None:
        self._finish_file()

    def _open_path(self, first_step: int) -> Path:
        return self._folder / f"rank_{self._rank:05d}-steps_{first_step:08d}.parquet.open"

    def _write_row_group(self) -> None:
        assert self._first_step is not None
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._open_path(self._first_step), SCHEMA, compression="zstd")
        self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=self._rows)
        self._batches, self._rows = [], 0

    def _finish_file(self) -> None:
        if self._first_step is None:
            return
        if self._rows:
            self._write_row_group()
        assert self._writer is not None
        self._writer.close()
        path = self._open_path(self._first_step)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(path, self._folder / score_file_name(self._rank, self._first_step, self._last_step))
        self._writer, self._first_step = None, None
