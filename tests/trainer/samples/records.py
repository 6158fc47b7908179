"""Run directories with records that a test has thought of."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.run_directory.layout import score_file_name

SOURCES = ("web", "wiki", "noise")
PER_STEP = 24


def columns_of(steps: list[int], seed: int = 0) -> dict[str, Any]:
    """Of ``PER_STEP`` samples in each step, with alignments; weights of a step sum to 1."""
    generator, size = np.random.default_rng(seed), PER_STEP * len(steps)
    norms = generator.lognormal(size=size)
    weights = generator.random((len(steps), PER_STEP))
    return {
        "step": np.repeat(steps, PER_STEP),
        "micro_step": np.tile(np.arange(PER_STEP) // 12, len(steps)),
        "rank": np.tile(np.arange(PER_STEP) // 6 % 2, len(steps)),
        "position": np.tile(np.arange(PER_STEP) % 6, len(steps)),
        "source": [SOURCES[number] for number in generator.integers(0, 3, size)],
        "document_id": [f"d{number}" for number in range(size)],
        "offset": np.zeros(size, np.int64),
        "loss": 4 + generator.standard_normal(size),
        "self_influence": norms,
        "alignment": norms**0.5 * generator.normal(0.1, 0.3, size),
        "weight": (weights / weights.sum(1, keepdims=True)).ravel(),
        "has_targets": np.ones(size, bool),
    }


def table_of(columns: dict[str, Any]) -> pa.Table:
    """Records with these columns, and what is not among them null."""
    size = len(columns["step"])
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(size, field.type)
        for field in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def write_records(
    run_dir: Path, columns: dict[str, Any], without: tuple[str, ...] = (), row_group_steps: int = 3
) -> Path:
    """A file of records; of an older version, which knew no columns ``without``."""
    folder = run_dir / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / score_file_name((0, 1), int(min(columns["step"])), int(max(columns["step"])))
    pq.write_table(table_of(columns).drop_columns(list(without)), file, row_group_size=row_group_steps * PER_STEP)
    return run_dir
