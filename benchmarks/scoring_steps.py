"""For how many steps to train a scoring model: how well scores tell noise from text, step by step of one training.

python -m benchmarks.scoring_steps WORK [--steps 40] [--noisy permuted] [--document docs/sequential.md]
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from benchmarks.ranks import ROOT
from benchmarks.sequential import command, rising
from presence_ds.trainer.scores.probe import auc

BIN = 4  # steps of a row of the table


def scoring_steps(
    work: Path,
    recipe: Path = ROOT / "recipes" / "sequential" / "sequential.yaml",
    steps: int = 40,
    noisy: str = "permuted",
    document: Path | None = None,
) -> None:
    """Train with uniform weights, and print the AUC of the noisy source beside all others by every score.

    Args:
        work: Folder for the corpus and the run.
        recipe: Text and model.
        steps: Of training, over all of which the rate rises.
        noisy: Source that scores should find.
        document: Page to put the table in.
    """
    command("prepare", recipe, work / "corpus")
    options = ["--training.steps", steps, *rising(steps), "--evaluation.every_steps", "null"]
    options += ["--presence.layers", "all", "--presence.signal", "uniform", "--presence.alignment", "true"]
    options += ["--run_dir", work / "run"]
    command("train", recipe, "--data.prepared", work / "corpus", *options)
    write_section(document, "scoring_steps", report(pq.read_table(work / "run" / "scores"), noisy))


def report(records: pa.Table, noisy: str) -> str:
    """A table of `BIN` steps a row."""
    step, source = records["step"].to_numpy(), np.array(records["source"].to_pylist())
    whole, vocabulary, loss = (
        records[name].to_numpy().astype(np.float64) for name in ("self_influence", "vocabulary_influence", "loss")
    )
    scores = {"all layers": whole, "embeddings and head": vocabulary, "all but these": whole - vocabulary, "loss": loss}
    rows = []
    for first in range(1, int(step.max()) + 1, BIN):
        here = (step >= first) & (step < first + BIN)
        isnoisy = source[here] == noisy
        aucs = [auc(score[here][~isnoisy], score[here][isnoisy]) for score in scores.values()]
        rows.append([f"{first} to {first + BIN - 1}", *(f"{one:.2f}" for one in aucs)])
    return table(["steps", *scores], rows)


if __name__ == "__main__":
    auto_cli(scoring_steps)
