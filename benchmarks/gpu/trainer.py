"""Part trainer: the trainer of this package against `transformers.Trainer`, with self-influence and without."""

import json
from dataclasses import replace
from typing import Any

from benchmarks.gpu.record import Row
from benchmarks.gpu.run import Part, Run
from benchmarks.trainer import report as trainer_table
from benchmarks.trainers import BASELINE, TrainerSetting

TRAINERS = [BASELINE, "self_influence", "loss"]
SETTING = TrainerSetting(
    hidden_size=1024,
    layers=24,
    vocabulary=16384,
    sequence_length=2048,
    batch_size=8,
    precision="bf16",
    steps=20,
    turn_steps=2,
    warmup=4,
    megabytes=4.0,
)
TINY = replace(
    SETTING,
    hidden_size=64,
    layers=2,
    vocabulary=300,
    sequence_length=24,
    batch_size=4,
    threads=1,
    steps=4,
    warmup=1,
    megabytes=0.2,
)
LEAST_S, MOST_S = 60.0, 150.0


def run(it: Run, part: str) -> None:
    """In processes of their own that take turns."""
    setting = TINY if it.tiny else SETTING
    trainers = TRAINERS[:2] if it.tiny else TRAINERS

    def measure() -> dict[str, Any]:
        arguments = ["--setting", json.dumps(setting.as_dict()), "--trainers", json.dumps(trainers)]
        said = it.python("-m", "benchmarks.trainer", "measure", *arguments, most_s=MOST_S)
        found: dict[str, Any] = json.loads(said[said.index("{\n") :])
        return found

    it.row(part, ", ".join(trainers), setting.as_dict(), measure, 1.0 if it.tiny else LEAST_S)


def report(rows: list[Row]) -> str:
    """The table of `benchmarks.trainer`."""
    return trainer_table([row["found"] for row in rows])


PART = Part("The trainer against transformers.Trainer", run, report, ("accelerate", "datasets", "tokenizers"))
