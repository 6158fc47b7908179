"""A recipe that changes in a run that goes on: every field has a rule, and the rule is what happens."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from presence_ds.commands.recipe_arguments import read_recipe, resolved_recipe
from presence_ds.commands.train import make_parser
from presence_ds.engine import PresenceConfig
from presence_ds.engine.resume_rules import PRESENCE, changes, plain_values, rules
from presence_ds.errors import ConfigError
from presence_ds.trainer.checkpoint.changed_recipe import (
    recipe_changes,
    recipe_values,
    stored_recipe,
    submitted_changes,
)
from presence_ds.trainer.checkpoint.recipe_rules import RECIPE
from presence_ds.trainer.recipe.plan import make_plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.layout import RunDirectory
from tests.conftest import Pools
from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import OPTIONS, Train, interrupted
from tests.trainer.checkpoint.rules_table import DOCS, fields, table
from tests.trainer.conftest import ROOT, read_metrics


def test_every_field_of_the_recipe_has_a_rule() -> None:
    """Give a new field a row in presence_ds/trainer/checkpoint/recipe_rules.py (presence: engine/resume_rules.py)."""
    assert sorted(rules(RECIPE)) == sorted(fields(Recipe))


def test_the_documentation_prints_the_rules() -> None:
    """Print them with ``python -m tests.trainer.checkpoint.rules_table``."""
    assert table() in DOCS.read_text()


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Callable[..., dict[str, Any]]:
    """What a recipe with every section comes to, with values of some fields changed."""
    recipe = {
        "data": {
            "sources": [{"name": "a", "path": str(corpus_file)}, {"name": "b", "path": str(corpus_file)}],
            "validation_sources": [{"name": "c", "path": str(corpus_file)}],
            "noise": [{}],
        },
        "model": {"config": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}},
        "presence": {"preset": "paper", "signal": "alignment", "strategy": "two_pass"},
        "reference": {"sources": ["a"]},
        "deepspeed": str(ROOT / "ds_configs" / "zero2.json"),
    }
    path = tmp_path_factory.mktemp("recipe") / "all.yaml"
    path.write_text(yaml.safe_dump(recipe))
    parser = make_parser()
    parsed = parser.parse_args([str(path)])
    read, file = read_recipe(parser, parsed)
    plan = make_plan(read, file, world_size=1, bf16_hardware=False)
    found = recipe_values(read, plan, resolved_recipe(parser, parsed, read, file)["deepspeed"], path.parent)
    found["data"]["streaming"] = {"lanes": 16, "buffer_samples": 64, "tokenizer_megabytes": 100.0}
    found["presence"] |= {"statistics": "running"}
    found["presence"]["schedule"]["kind"] = "auto"

    def changed(**changes: Any) -> dict[str, Any]:
        copy: dict[str, Any] = json.loads(json.dumps(found))
        for name, value in changes.items():
            inner: Any = copy
            *path, last = name.replace("[]", ".0").split(".")
            for part in path:
                inner = inner[int(part) if part.isdigit() else part]
            assert last in inner
            inner[last] = value
        return copy

    return changed


def warnings_are_errors(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("field", [name for name, rule in rules(RECIPE).items() if rule.effect == "refused"])
def test_a_field_that_must_not_change_is_refused_by_name(values: Callable[..., dict[str, Any]], field: str) -> None:
    now = values(**{"model.config.n_embd" if field == "model.config" else field: ["another value"]})
    with pytest.raises(ConfigError) as error:
        recipe_changes(Path("/runs/a/checkpoints/step_00000004"), values(), now, warnings_are_errors)
    assert str(error.value).startswith(field.replace("[]", "[0]"))
    assert 'is ["another value"], and /runs/a/checkpoints/step_00000004 was written with ' in str(error.value)
    assert "\n" not in str(error.value)


def test_every_other_change_is_told_in_a_line(values: Callable[..., dict[str, Any]]) -> None:
    others = {name: rule for name, rule in rules(RECIPE).items() if rule.effect != "refused"}
    now = values(**dict.fromkeys(others, "other"))
    lines = [str(change) for change in recipe_changes(Path("step"), values(), now, warnings_are_errors)]
    assert len(lines) == len(others)
    assert "optimizer.lr: 0.0003 -> other" in lines
    assert "training.seed: 0 -> other (of no effect: weights and random states are the checkpoint's)" in lines
    assert not recipe_changes(Path("step"), values(), values(), warnings_are_errors)


def test_a_preset_that_is_not_stated_is_no_change_by_itself() -> None:
    """What it comes to is told by the weight function."""
    calibrated, paper, not_stated = (
        plain_values(PresenceConfig.from_mapping(section), running=False)
        for section in ({"preset": "calibrated"}, {"preset": "paper"}, {})
    )
    assert not changes(PRESENCE, calibrated, not_stated)
    assert [str(change) for change in changes(PRESENCE, paper, not_stated)] == ["weighting.kind: softmax -> calibrated"]


def test_what_is_kept_of_earlier_steps_decides_for_some_fields(values: Callable[..., dict[str, Any]]) -> None:
    """Without running statistics, alignment or schedule auto nothing is kept that they would be wrong for."""
    off = {"presence.statistics": "batch", "presence.signal": "self_influence", "presence.schedule.kind": "linear"}
    fields = {name: "x" for name, rule in rules(RECIPE).items() if rule.where}
    assert {"presence.layers", "presence.projection_dim", "reference.sources"} <= fields.keys()
    found = recipe_changes(Path("step"), values(**off), values(**off, **fields), warnings_are_errors)
    assert {change.field for change in found} == set(fields)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"data.noise": None}, {}, "data.noise is [{"),
        ({}, {"data.validation_sources": None}, "data.validation_sources is null"),
        ({"data.sources": [{"name": "a"}]}, {}, "data.sources is [{"),
    ],
)
def test_sections_that_come_or_go_are_refused(
    values: Callable[..., dict[str, Any]], before: dict[str, Any], now: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError) as error:
        recipe_changes(Path("step"), values(**before), values(**now), warnings_are_errors)
    assert str(error.value).startswith(named)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("in_manifest", [True, False])
def test_noise_of_when_it_had_one_kind(
    values: Callable[..., dict[str, Any]], tmp_path: Path, in_manifest: bool
) -> None:
    """A section in the place of a list of one, in a checkpoint or beside one that has no recipe."""
    earlier = values(**{"data.noise": {"share": 0.2, "name": "shuffled"}})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(earlier))
    checkpoint = tmp_path / "checkpoints" / "step_00000001"
    manifest: Any = SimpleNamespace(recipe=earlier if in_manifest else None)
    before = stored_recipe(checkpoint, manifest)
    assert not recipe_changes(checkpoint, before, values(), warnings_are_errors)
    for field, value in {"kind": "permuted", "share": 0.1, "name": "other"}.items():
        with pytest.raises(ConfigError, match=rf"^data\.noise\[0\]\.{field} is {value}, and "):
            recipe_changes(checkpoint, before, values(**{f"data.noise[].{field}": value}), warnings_are_errors)


CHANGED = {
    "optimizer.lr": 1e-30,
    "optimizer.betas": [0.5, 0.6],
    "optimizer.eps": 1e-5,
    "optimizer.weight_decay": 0.0,
    "optimizer.implementation": "for_loop",
    "lr_schedule.kind": "constant",
    "training.steps": 5,
    "training.gradient_clipping": 0.25,
    "logging.every_steps": 2,
    "presence.schedule.tau_inverse": -2.0,
}
NEW = [part for name, value in CHANGED.items() for part in (f"--{name}", json.dumps(value).strip('"'))]


@pytest.mark.parametrize(("before", "after", "stage"), [(1, 1, 1), (2, 2, 2), (2, 2, 3), (2, 1, 3)])
def test_changed_settings_are_those_of_the_resumed_run(
    pools: Pools, whole: Callable[..., Path], tmp_path: Path, tiny_recipe: Path, before: int, after: int, stage: int
) -> None:
    """In the optimizer, the clipping, the log and what is told, through a universal checkpoint too."""
    batch = ["--training.gradient_accumulation_steps", str(2 * before // after)]
    run_dir = interrupted(whole(before, stage), tmp_path / "run", 3)
    zero = ["--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json")]
    arguments = [str(tiny_recipe), *OPTIONS, *zero, *batch, *NEW, "--run_dir", str(run_dir)]
    for found in pools.get(after).run(runs.train_and_look, *arguments):
        assert found["error"] is None
        for group in found["groups"]:
            assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-30, (0.5, 0.6), 1e-5, 0.0)
            assert group["foreach"] is False
        assert found["clipping"] == 0.25
        assert found["moved"] == 0.0
        told = [line for line in found["output"].splitlines() if line.startswith("changed since the checkpoint: ")]
        if found["rank"] == 0:
            assert "changed since the checkpoint: optimizer.lr: 0.001 -> 1e-30" in told
            assert {line.split(": ")[1] for line in told} >= set(CHANGED)
    lines = read_metrics(run_dir)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["learning_rate"] for line in lines[3:]] == [1e-30, 1e-30]
    assert [line["tau"] for line in lines[3:]] == [-2.0, -2.0]
    manifest = json.loads((run_dir / "checkpoints" / "step_00000005" / "manifest.json").read_text())
    assert manifest["recipe"]["optimizer"]["lr"] == 1e-30
    assert yaml.safe_load((run_dir / "recipe.yaml").read_text())["optimizer"]["lr"] == 1e-30


REFUSED = {
    "data.seed is 1, and": ["--data.seed", "1"],
    "optimizer.kind is amsgrad, and": ["--optimizer.kind", "amsgrad"],
    "model.config.resid_pdrop is 0.0, and": ["--model.config.resid_pdrop=0.0"],
    "presence.loss_normalizer is sum, and": ["--presence.loss_normalizer", "sum"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_refusal_comes_before_anything_is_read_or_changed(
    train: Train, whole: Callable[..., Path], tmp_path: Path, message: str
) -> None:
    run_dir = interrupted(whole(1, 2), tmp_path / "run", 3)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    error = train(run_dir, *REFUSED[message], ranks=1)
    assert error is not None
    assert error.startswith(message)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_a_run_can_go_on_with_another_signal_or_momentum(train: Train, tmp_path: Path) -> None:
    """Where nothing is kept that they would be wrong for: a reference is observed at once, SGD begins a momentum."""
    sgd = ["--presence.strategy", "two_pass", "--optimizer.kind", "sgd", "--training.steps"]
    assert train(tmp_path / "run", *sgd, "2", ranks=1, stage=1) is None
    other = ["--presence.signal", "alignment", "--reference.sources", '["lines"]', "--optimizer.momentum", "0.9"]
    assert train(tmp_path / "run", *sgd, "4", *other, ranks=1, stage=1) is None
    assert train(tmp_path / "run", *sgd, "5", "--presence.projection_dim", "8", ranks=1, stage=1) is None
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5]


def test_checkpoints_without_a_recipe_are_compared_with_their_run_directory(
    one_rank: Ranks, train: Train, whole: Callable[..., Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Those of an earlier version; also where one is gone on from in another directory, and on submission."""
    old = interrupted(whole(1, 2), tmp_path / "old", 2)
    checkpoint = old / "checkpoints" / "step_00000002"
    runs.rewrite_manifest(checkpoint, lambda content: {k: v for k, v in content.items() if k != "recipe"})
    options = [str(tiny_recipe), *OPTIONS, "--training.steps", "3", "--checkpoint.resume", str(checkpoint)]
    error = train(tmp_path / "new", *options[-2:], "--data.seed", "1", ranks=1)
    assert error is not None
    assert error.startswith(f"data.seed is 1, and {checkpoint} was written with 0")
    lr = ["--optimizer.lr", "1e-30", "--run_dir"]
    found = one_rank.run(runs.train_and_look, *options, *lr, str(tmp_path / "new"))[0]
    assert found["error"] is None
    assert "optimizer.lr: 0.001 -> 1e-30" in found["output"]
    assert [line["learning_rate"] for line in read_metrics(tmp_path / "new")] == [pytest.approx(1e-31)]

    parser = make_parser()
    parsed = parser.parse_args([*options[:-2], "--optimizer.lr", "1.0", "--run_dir", str(old)])
    recipe, file = read_recipe(parser, parsed)
    plan = make_plan(recipe, file, world_size=1, bf16_hardware=True)
    lines = [str(change) for change in submitted_changes(recipe, plan, recipe.deepspeed, RunDirectory(old))]
    assert "optimizer.lr: 0.001 -> 1.0" in lines
    recipe.data.seed = 1
    with pytest.raises(ConfigError, match=r"^data\.seed is 1, and "):
        submitted_changes(recipe, plan, recipe.deepspeed, RunDirectory(old))

    (old / "recipe.yaml").unlink()
    bare = [*options, *lr, str(tmp_path / "bare")]
    assert "does not say with what recipe it was written" in one_rank.run(runs.train_and_look, *bare)[0]["output"]
