"""What `presence gain` takes for the score records of a long run, which are made up and written as the trainer does.

python -m benchmarks.gain [--samples 100000000] [--per_step '[1024, 32]'] [--document docs/benchmarks.md]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from presence_ds.trainer.callbacks.score_records import ROWS_KEPT
from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.run_directory.layout import score_file_name

PER_RANK = 16  # samples of a rank in a step
ROW_GROUPS = 20  # of a file, between two checkpoints
SOURCES = ["code", "web", "wiki"]

Measured = dict[str, float]  # samples, steps, bytes, seconds, cpu_seconds and peak_bytes


def write_run(run_dir: Path, samples: int, per_step: int) -> int:
    """A run directory with about as many records, all of ranks that share a file; the number of steps."""
    (run_dir / "scores").mkdir(parents=True)
    (run_dir / "recipe.yaml").touch()
    ranks = per_step // PER_RANK
    steps, step = samples // per_step, 1
    generator = np.random.default_rng(0)
    while step <= steps:
        first = step
        path = run_dir / "scores" / "open"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for _ in range(ROW_GROUPS):
                last = min(step + ROWS_KEPT // PER_RANK, steps + 1)
                if step < last:
                    writer.write_table(_records(generator, step, last, ranks))
                step = last
        path.rename(run_dir / "scores" / score_file_name((0, ranks - 1), first, step - 1))
    return steps


def _records(generator: np.random.Generator, first: int, end: int, ranks: int) -> pa.Table:
    """Of steps up to ``end``, rank after rank."""
    steps = np.tile(np.repeat(np.arange(first, end, dtype=np.int32), PER_RANK), ranks)
    number = len(steps)
    source = generator.integers(0, len(SOURCES), number, dtype=np.int16)
    normal = generator.standard_normal((3, number), dtype=np.float32)
    level, norms = 1.0 / steps.astype(np.float32), np.exp(0.8 * normal[0])  # in units of the level
    columns: dict[str, Any] = {
        "step": steps,
        "micro_step": np.zeros(number, np.int16),
        "rank": np.repeat(np.arange(ranks, dtype=np.int32), number // ranks),
        "position": np.tile(np.arange(PER_RANK, dtype=np.int32), number // PER_RANK),
        "source": pa.DictionaryArray.from_arrays(source, SOURCES),
        "document_id": pa.nulls(number, pa.string()).fill_null("document"),
        "offset": np.arange(number),
        "loss": 4.0 + normal[1],
        "self_influence": level * norms,
        "alignment": level * norms**0.7 * (0.02 * (1 + source) + 0.1 * normal[2]),
        "reference_alignment": pa.nulls(number, pa.float32()),
        "vocabulary_influence": level * norms * (0.3 + 0.1 * generator.random(number, dtype=np.float32)),
        "momentum_alignment": pa.nulls(number, pa.float32()),
        "weight": np.full(number, 1.0 / (ranks * PER_RANK), np.float32),
        "has_targets": generator.random(number) > 1e-5,
    }
    return pa.table(columns, schema=SCHEMA)


def measure(folder: Path, samples: int, per_step: int) -> Measured:
    """`presence gain` in a process of its own, its imports included; what it reads was written just before."""
    run_dir = folder / f"run_{per_step}"
    steps = write_run(run_dir, samples, per_step)
    started = time.perf_counter()
    start = "from presence_ds.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "gain", str(run_dir), "--json", str(folder / "gain.json")],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"presence gain ended with {process.returncode}")
    return {
        "samples": steps * per_step,
        "steps": steps,
        "bytes": sum(file.stat().st_size for file in (run_dir / "scores").iterdir()),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def report(found: dict[int, Measured]) -> str:
    """The figures as a markdown table."""
    header = ["samples of a step", "samples", "steps", "files", "time", "of the processors", "peak memory"]
    rows = [
        [
            f"{per_step:,}",
            f"{one['samples']:,.0f}",
            f"{one['steps']:,.0f}",
            f"{one['bytes'] / 1e9:.1f} GB",
            f"{one['seconds']:.0f} s",
            f"{one['cpu_seconds']:.0f} s",
            f"{one['peak_bytes'] / 1e9:.2f} GB",
        ]
        for per_step, one in found.items()
    ]
    return table(header, rows)


def main(
    samples: int = 100_000_000,
    per_step: list[int] = [1024, 32],  # noqa: B006
    document: Path | None = None,
) -> None:
    """Measure, and print a table or put it into a document.

    Args:
        samples: Records of each run, 40 bytes each on the disk for as long as it is measured.
        per_step: Samples of an optimizer step, in multiples of 16.
        document: Where the table belongs.
    """
    found = {}
    for number in per_step:
        with tempfile.TemporaryDirectory() as folder:
            found[number] = measure(Path(folder), samples, number)
    write_section(document, "gain", report(found))


if __name__ == "__main__":
    auto_cli(main)
