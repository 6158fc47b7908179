"""Part quickstart: recipes/quickstart.yaml as a user runs it: its time, and what it says in the end."""

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.document import table
from benchmarks.gpu.record import Row
from benchmarks.gpu.run import Part, Run, folder_of

RECIPE = "recipes/quickstart.yaml"
TINY = ["--training.steps", "6", "--lr_schedule.warmup_steps", "2", "--logging.every_steps", "2"]
SOURCE = {"format": "python_packages", "max_megabytes": 0.2}
TINY += ["--data.sources", json.dumps([SOURCE | {"name": "prose", "content": "docstrings"}])]
TINY += ["--evaluation.max_batches", "2", "--data.tokenizer.vocab_size", "600", "--training.micro_batch_size", "4"]
MOST_S = 180.0


def run(it: Run, part: str) -> None:
    """`presence train`, which starts a rank for every GPU itself."""
    options = TINY if it.tiny else []

    def measure() -> dict[str, Any]:
        run_dir = folder_of(it, "quickstart") / str(int(time.time()))
        began = time.monotonic()
        said = it.python(
            *("-m", "presence_ds", "train", RECIPE, "--run_dir", str(run_dir), *options), most_s=MOST_S, environment={}
        )
        finished = [line for line in said.splitlines() if line.startswith("finished:")]
        return {
            "seconds": round(time.monotonic() - began, 1),
            "finished": finished[-1] if finished else said.strip().splitlines()[-1],
            "validation_loss": _summary(run_dir).get("validation_loss"),
        }

    it.row(part, RECIPE, {"options": options}, measure, 1.0 if it.tiny else 60.0)


def _summary(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def report(rows: list[Row]) -> str:
    """A line for the run."""
    lines = [[f"`{row['row']}`", f"{row['found']['seconds']:.0f} s", row["found"]["finished"]] for row in rows]
    return table(["recipe", "in all", "its last line"], lines)


PART = Part("The quickstart", run, report)
