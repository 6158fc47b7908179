"""Whole runs of the trainer for combinations of options: everything on, stopped on the way and gone on with."""

import io
import json
import shutil
from collections import defaultdict
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import yaml

from presence_ds import cli
from presence_ds.data import prepare_corpus
from presence_ds.engine import PresenceConfig
from presence_ds.trainer.callbacks.throughput import TIMINGS
from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SELF_INFLUENCE, shown_name
from tests.combinations.covering import Combination, Factors
from tests.combinations.factors import DATA, EVALUATION, STEPS, TRAINING, instantiated, section, value
from tests.combinations.figures import check_line, expected_names, expected_of_source, may_occur, strict_json
from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.conftest import read_scores

WORDS = ["the", "model", "of", "a", "small", "world", "reads", "one", "line", "after", "another", "and", "learns"]
LINES, LENGTH, MICRO_BATCH = 120, 16, 4
MODEL = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH, "resid_pdrop": 0.1}


class TrainerRuns:
    """Recipes and runs below one folder, which share a corpus that is prepared once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = folder / "lines.jsonl"
        with open(text, "w") as file:
            for index in range(LINES):
                words = [WORDS[(index * 7 + place * (1 + index % 5)) % len(WORDS)] for place in range(20)]
                file.write(json.dumps({"text": f"{index} " + " ".join(words)}) + "\n")
        self.data = {
            "sources": [{"name": "lines", "path": str(text)}],
            "noise": [{"share": 0.3}],
            "validation_fraction": 0.1,
            "sequence_length": LENGTH,
            "tokenizer": {"vocab_size": 270},
        }
        (folder / "data.yaml").write_text(yaml.safe_dump({"data": self.data}))
        self._made = 0

    def prepare(self) -> None:
        """The corpus, as ``presence prepare`` makes it."""
        parser = runs.make_parser()
        recipe, _ = runs.read_recipe(parser, parser.parse_args([str(self.folder / "data.yaml")]))
        prepare_corpus(recipe.data, self.folder / "corpus")

    def recipe(self, factors: Factors, combination: Combination, **more: Any) -> Path:
        """A recipe file of its own; its run directory is beside it."""
        self._made += 1
        path = self.folder / f"{self._made:04d}.yaml"
        values = {name: value(factors, combination, name) for name in TRAINING}
        of_data = {name: value(factors, combination, name) for name in DATA}
        of_evaluation = {name: value(factors, combination, name) for name in EVALUATION}
        presence = section(factors, combination)
        zero = {"stage": values["stage"], "stage3_param_persistence_threshold": 0}
        deepspeed = self.folder / f"zero{values['stage']}.json"
        deepspeed.write_text(json.dumps({"zero_optimization": zero}))
        recipe = {
            "run_dir": str(path.with_suffix("")),
            "model": {"config": MODEL},
            "data": {"prepared": str(self.folder / "corpus")} | of_data,
            "deepspeed": str(deepspeed),
            "presence": presence,
            "reference": {"sources": ["lines"] if compares(presence) else None, "every_steps": 1},
            "optimizer": {"lr": 1e-3},
            "lr_schedule": {"warmup_steps": 1},
            "training": {
                "steps": STEPS,
                "micro_batch_size": MICRO_BATCH,
                "gradient_accumulation_steps": values["accumulation"],
                "precision": values["precision"],
            },
            "evaluation": {"every_steps": 1, "max_batches": 1} | of_evaluation,
            "checkpoint": {"every_steps": 1, "keep": None},
            "logging": {"every_steps": 1},
        }
        beside = value(factors, combination, "tracker") | value(factors, combination, "profiler")
        path.write_text(yaml.safe_dump(recipe | beside | more))
        return path

    def run(self, pool: Ranks, factors: Factors, combination: Combination, **more: Any) -> None:
        """Train for two steps; once more from the checkpoint after the first, which must change nothing.

        Raises:
            AssertionError: a rank failed, or what the run left is not what such a run leaves.
        """
        recipe = self.recipe(factors, combination, **more)
        run_dir = recipe.with_suffix("")
        config = PresenceConfig(**instantiated(section(factors, combination)))
        assert pool.run(runs.train, str(recipe)) == [None] * pool.size
        left = check_left(run_dir, config)
        shutil.rmtree(run_dir / "checkpoints" / f"step_{STEPS:08d}")
        (run_dir / "summary.json").unlink()
        assert pool.run(runs.train, str(run_dir / "recipe.yaml")) == [None] * pool.size  # which reads back
        assert check_left(run_dir, config) == left
        shutil.rmtree(run_dir)

    def refused(self, factors: Factors, combination: Combination) -> str:
        """What ``presence train`` says of a combination before it starts a rank.

        Raises:
            AssertionError: it does not end at once with status 1, or leaves something.
        """
        recipe, said = self.recipe(factors, combination), io.StringIO()
        ranks = str(value(factors, combination, "ranks"))
        status = None
        with redirect_stderr(said):
            try:
                cli.main(["train", str(recipe), "--num_processes", ranks])
            except SystemExit as ended:
                status = ended.code
        assert status == 1, status
        assert not recipe.with_suffix("").exists()
        return said.getvalue()


def compares(presence: dict[str, Any]) -> bool:
    """Whether a `presence` section has a use for a reference."""
    return presence.get("signal") == "alignment" or presence.get("alignment_with") == "reference"


def check_left(run_dir: Path, config: PresenceConfig) -> dict[str, Any]:
    """Metrics, score records, summary and checkpoints of a finished run; what must not depend on interruptions."""
    lines = [strict_json(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    by_frequency = yaml.safe_load((run_dir / "recipe.yaml").read_text())["evaluation"]["by_frequency"]
    for line in lines:
        check_line(line)
        assert expected_names(config) <= line.keys()
        every = expected_names(config) | may_occur(config) | OTHERS
        of_sources = {name for name in line if name.startswith(("source/", "validation/"))}
        assert line.keys() - set(TIMINGS) - of_sources <= every
        assert {f"source/lines/{name}" for name in expected_of_source(config)} <= of_sources
        assert line["validation/loss"] > 0
        assert any(name.startswith("validation/tenth_") for name in line) == by_frequency
        assert [name for name in line if shown_name(name) is None] == []
    tracked, recipe = run_dir / "tracked.jsonl", yaml.safe_load((run_dir / "recipe.yaml").read_text())
    beside = []
    if any(recipe[tracker]["enabled"] for tracker in ("wandb", "tensorboard", "trackio")):
        beside = [strict_json(line) for line in tracked.read_text().splitlines()]
        for line, figures in zip(beside, lines, strict=True):
            check_beside(line, figures, config)
    else:
        assert not tracked.exists()

    weights: dict[int, float] = defaultdict(float)
    rows = read_scores(run_dir)
    for row in rows:
        weights[row["step"]] += row["weight"]
        assert (row["self_influence"] is None) == (not config.computes_gradients)
        assert (row["alignment"] is None) == (not config.aligns)
        assert (row["reference_alignment"] is None) == (not config.uses_reference)
        assert (row["vocabulary_influence"] is None) == ("vocabulary" not in config.features)
        assert (row["momentum_alignment"] is None) == ("momentum" not in config.features)
    assert len(rows) == sum(line["samples"] for line in lines)
    assert all(abs(total - 1.0) < 1e-5 for total in weights.values()), weights

    summary = strict_json((run_dir / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert set(summary["stages"]) == {line["stage"] for line in lines}
    names = sorted(path.name for path in (run_dir / "checkpoints").glob("step_*"))
    assert names == [f"step_{step:08d}" for step in range(1, STEPS + 1)]
    untimed = [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]
    left = {"metrics": untimed, "scores": rows, "stages": summary["stages"], "validation": summary["validation"]}
    return left | {"beside": beside}


def check_beside(line: dict[str, Any], figures: dict[str, Any], config: PresenceConfig) -> None:
    """What trackers show of a step beside its metrics: every sample that counts, and both ends of the weights."""
    names = {SAMPLE_LOSS, RELATIVE_WEIGHT, *([SELF_INFLUENCE] if config.computes_gradients else [])}
    counted = figures["samples"] - figures["nonfinite_samples"] - figures["samples_without_targets"]
    assert line["step"] == figures["step"]
    assert {name: sum(counts) for name, (_, _, counts) in line["histograms"].items()} == dict.fromkeys(names, counted)
    number = min(8, max(1, counted // 2))
    assert [row["which"] for row in line["samples"]].count("highest") == number
    assert [row["which"] for row in line["samples"]].count("lowest") == number
    assert (
        counted < 2 or len({(row["source"], row["document"], row["offset"]) for row in line["samples"]}) == 2 * number
    )
    for row in line["samples"]:
        assert (row["self_influence"] is None) == (not config.computes_gradients)
        assert (row["alignment"] is None) == (not config.aligns)


OTHERS = {  # of a line of metrics.jsonl, beside the statistics
    *("step", "tokens", "epoch", "learning_rate", "gradient_norm"),
    *("nonfinite_steps", "skipped_steps", "loss_spikes", "gradient_spikes"),
}
