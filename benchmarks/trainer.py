"""Throughput of the trainer relative to `transformers.Trainer` under the same DeepSpeed configuration.

    python -m benchmarks.trainer measure [--setting.ranks 2 ...]
    python -m benchmarks.trainer matrix --results trainer.jsonl [--document docs/benchmarks.md]

Every trainer is the real one, with its own loop, logging and files, in processes of its own; they take turns of a few
steps, while the others wait. Absolute times on a shared machine mean little, ratios of paired turns mean more.
"""

import json
import os
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from benchmarks.trainers import BASELINE, TRAINERS, TrainerSetting
from benchmarks.trainers.processes import Processes
from presence_ds.data import prepare_corpus
from presence_ds.trainer.building.device import hardware_has_bf16


def measure(setting: TrainerSetting, trainers: list[str] = list(TRAINERS)) -> dict[str, Any]:  # noqa: B006
    """Measure one setting.

    Args:
        setting: What to train, and how long.
        trainers: Which of `benchmarks.trainers.TRAINERS`; "transformers.Trainer" must be among them.

    Returns:
        The setting, and by trainer: ``tokens_per_second``, median over the turns; ``ratio``, the median over paired
        turns of its throughput to transformers.Trainer's, and ``quartiles`` of that; ``losses`` by logged step.

    Raises:
        RuntimeError: a rank failed; the message ends with its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        seconds_of, losses = _take_turns(setting, trainers, Path(folder))
    tokens = setting.turn_steps * setting.tokens_per_step
    found = {}
    for name, seconds in seconds_of.items():
        paired = [theirs / ours for ours, theirs in zip(seconds, seconds_of[BASELINE], strict=True)]
        low, _, high = statistics.quantiles(paired, n=4) if len(paired) > 1 else paired * 3
        found[name] = {
            "tokens_per_second": round(tokens / statistics.median(seconds), 1),
            "ratio": round(statistics.median(paired), 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "losses": losses[name],
        }
    return {"setting": setting.as_dict(), "parameters": setting.parameters(), "trainers": found}


def _take_turns(
    setting: TrainerSetting, trainers: list[str], folder: Path
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of every measured turn of every trainer, and its losses by logged step."""
    prepare_corpus(setting.recipe(folder)[0].data, folder / "corpus")
    running: dict[str, Processes] = {}
    try:
        for name in trainers:
            shutil.copytree(folder / "corpus", folder / name / "corpus", copy_function=os.link)
            running[name] = Processes(name, setting, folder / name)
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for number in range(1 + setting.steps // setting.turn_steps):
            # the order turns, so that none always finds the caches warm
            for name in trainers if number % 2 == 0 else reversed(trainers):
                taken = running[name].turn()
                if number > 0:  # the first steps are not measured
                    seconds[name].append(taken)
        losses = {name: processes.finish() for name, processes in running.items()}
    finally:
        for processes in running.values():
            processes.end()
    # as in the JSON that a setting's line becomes
    return seconds, {name: {str(step): loss for step, loss in found.items()} for name, found in losses.items()}


def settings() -> list[TrainerSetting]:
    """A small model (5 M parameters) and a larger one (42 M), on one rank and on two; one thread to a rank."""
    precision: Literal["bf16", "float32"] = "bf16" if hardware_has_bf16() else "float32"
    small = TrainerSetting(
        hidden_size=256,
        layers=5,
        vocabulary=4096,
        sequence_length=128,
        batch_size=8,
        precision=precision,
        threads=1,
        steps=60,
        turn_steps=1,  # steps of two trainers that follow each other find the machine as busy
        warmup=5,
    )
    large = replace(small, hidden_size=512, layers=8, vocabulary=16384, sequence_length=512, batch_size=2, steps=24)
    return [
        large,
        replace(large, keep_freed=True),
        replace(large, ranks=2),
        small,
        replace(small, ranks=2),
        replace(small, ranks=2, stage=3),
    ]


def matrix(results: Path, document: Path | None = None) -> None:
    """Measure several settings, one after another, and make a table of them.

    Without trainer ``uniform``, which does what ``self_influence`` does.

    Args:
        results: JSON lines; every measured setting is added to it, and settings that are there are not measured again.
        document: Markdown file to put the table into. null: print it.
    """
    known = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    rows = []
    for setting in settings():
        row = next((row for row in known if row["setting"] == setting.as_dict()), None)
        if row is None:
            row = measure(setting, [name for name in TRAINERS if name != "uniform"])
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        rows.append(row)
    write_section(document, "trainer", report(rows))


def report(rows: list[dict[str, Any]]) -> str:
    """A table in markdown, a row for every setting."""
    names = [name for name in TRAINERS if name != BASELINE and any(name in row["trainers"] for row in rows)]
    header = ["model", "precision", "T", "samples per rank", "ZeRO", "ranks", "allocator", f"{BASELINE}, tokens/s"]
    lines = []
    for row in rows:
        s = row["setting"]
        shown = (s["precision"], s["sequence_length"], s["batch_size"], s["stage"], s["ranks"])
        line = [f"{row['parameters'] / 1e6:.0f} M", *map(str, shown), "keeps" if s["keep_freed"] else "default"]
        line.append(f"{row['trainers'][BASELINE]['tokens_per_second']:,.0f}")
        for name in names:
            found = row["trainers"][name]
            low, high = found["quartiles"]
            line.append(f"{found['ratio']:.2f} ({low:.2f}–{high:.2f})")
        lines.append(line)
    return (
        f"Tokens per second relative to {BASELINE}, above 1 is faster: median (quartiles) of paired turns\n\n"
        f"{table([*header, *names], lines)}"
    )


if __name__ == "__main__":
    if found := auto_cli([measure, matrix], as_positional=False):
        print(json.dumps(found, indent=2))
