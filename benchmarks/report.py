"""A report of a run of 100,000 steps and 10 million records: how long it takes, how much memory, how large it is.

    python -m benchmarks.report [--steps N] [--samples N] [--keep DIR]

The run is made up, with the columns and lines of a real one. Memory is the most of the process that makes the report,
which starts anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.run_directory.layout import score_file_name

SOURCES = [f"source{number}" for number in range(8)]
DOCUMENTS = 2_000_000  # so that every one is seen some five times
PER_GROUP, PER_FILE = 100, 5_000  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=100, help="of a step")
    parser.add_argument("--keep", type=Path, help="folder for the run, which is not deleted; one that is there is used")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of is not None:
        build(arguments.of)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.keep or Path(folder) / "run"
        if not run.is_dir():
            write_run(run, arguments.steps, arguments.samples)
        subprocess.run([sys.executable, "-m", "benchmarks.report", "--of", run], check=True)


def build(run: Path) -> None:
    """Make the report of ``run``, and print what it took."""
    from presence_ds.trainer.report.page.page import render
    from presence_ds.trainer.report.report import make_report

    started = time.perf_counter()
    report = make_report([run])
    figures = time.perf_counter() - started
    size = len(render(report).encode())
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{time.perf_counter() - started:.1f} s ({figures:.1f} s for the figures), "
        f"{used.ru_utime + used.ru_stime:.1f} s of processor time, {used.ru_maxrss / 2**20:.2f} GiB, "
        f"a page of {size / 1e6:.1f} MB"
    )
    print("\n".join(sentence.text for sentence in report.summary))


def write_run(run: Path, steps: int, samples: int) -> None:
    """A run directory with a line for every step and ``samples`` records in each."""
    (run / "scores").mkdir(parents=True)
    (run / "recipe.yaml").write_text(
        f"presence: {{preset: calibrated}}\ntraining: {{steps: {steps}, seed: 0}}\n", encoding="utf-8"
    )
    draw = np.random.default_rng(0)
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(line(step, steps, samples, draw)) + "\n")
    for first in range(1, steps + 1, PER_FILE):
        last = min(steps, first + PER_FILE - 1)
        with pq.ParquetWriter(run / "scores" / score_file_name((0, 7), first, last), SCHEMA, compression="zstd") as out:
            for start in range(first, last + 1, PER_GROUP):
                out.write_table(table(np.arange(start, min(last + 1, start + PER_GROUP)), samples, draw))


def line(step: int, steps: int, samples: int, draw: np.random.Generator) -> dict[str, object]:
    """Of metrics.jsonl."""
    loss = 2.5 + 6 / (1 + step / 500) + 0.05 * draw.standard_normal() + 3.0 * (step % 9973 == 0)
    found: dict[str, object] = {
        **{"step": step, "tokens": step * samples * 1024, "stage": "constant", "samples": samples, "loss": loss},
        **{"weighted_loss": loss, "effective_sample_size": 0.9 * samples, "max_weight": 0.02, "si_mean": 2.0},
        **{"si_variance": 1.0, "gradient_norm": 0.4, "learning_rate": 1e-3, "noise_scale": 2000.0, "epoch": 1},
        **{"nonfinite_steps": 0, "skipped_steps": step // 30_000, "loss_spikes": step // 9973, "gradient_spikes": 0},
        **{"throughput(tokens/s)": 1e5, "step_time(s)": 1.0, "data_wait_share": 0.01, "memory/peak(GiB)": 60.0},
        **{"eta(s)": 1.1 * (steps - step), "gain/in_use": 1.1, "gain/in_use_error": 0.02, "gain/clip": 1.05},
    }
    for name in SOURCES:
        found |= {
            f"source/{name}/{figure}": 1.0 + draw.random() for figure in ("samples", "mean_weight", "loss", "worth")
        }
    if step % 1000 == 0:
        found |= {"validation/loss": loss} | {f"validation/{name}/loss": loss for name in SOURCES}
    return found


def table(steps: np.ndarray, samples: int, draw: np.random.Generator) -> pa.Table:
    """Of score records: norms with heavy tails, alignments of which some are negative, weights that fall with norms."""
    number = len(steps) * samples
    sources = draw.integers(0, len(SOURCES), number).astype(np.int16)
    documents = draw.integers(0, DOCUMENTS, number)
    norms = np.exp(0.5 * draw.standard_normal(number) + 1.5 * (documents % 1000 == 0))
    alignment = np.sqrt(norms) * (0.05 + 0.2 * draw.standard_normal(number))
    weights = (1 / np.sqrt(norms)).reshape(len(steps), samples)
    weights = (weights / weights.sum(1, keepdims=True)).reshape(-1)
    columns = {
        "step": np.repeat(steps, samples).astype(np.int32),
        "micro_step": np.zeros(number, np.int16),
        "rank": np.tile(np.arange(samples) * 8 // samples, len(steps)).astype(np.int32),
        "position": np.tile(np.arange(samples), len(steps)).astype(np.int32),
        "source": pa.DictionaryArray.from_arrays(sources, pa.array(SOURCES)),
        "document_id": pa.array([f"part-{one % 64:05d}.jsonl.zst:{one // 64}" for one in documents.tolist()]),
        "offset": np.zeros(number, np.int64),
        "loss": (3 + 0.5 * draw.standard_normal(number)).astype(np.float32),
        "self_influence": norms.astype(np.float32),
        "alignment": alignment.astype(np.float32),
        "reference_alignment": pa.nulls(number, pa.float32()),
        "vocabulary_influence": (norms * draw.random(number)).astype(np.float32),
        "momentum_alignment": pa.nulls(number, pa.float32()),
        "weight": weights.astype(np.float32),
        "has_targets": np.ones(number, bool),
    }
    return pa.table(columns, schema=SCHEMA)


if __name__ == "__main__":
    main()
