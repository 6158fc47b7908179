"""Shipped recipes and DeepSpeed configurations, read through the real entry point."""

import json
from pathlib import Path

import pytest
import yaml

from presence_ds import cli
from presence_ds.commands import train
from presence_ds.commands.recipe_arguments import read_recipe, resolved_recipe
from presence_ds.trainer.recipe.deepspeed import is_offloaded, read_deepspeed_json
from presence_ds.trainer.recipe.plan import make_plan
from presence_ds.trainer.recipe.recipe import Recipe

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
DS_CONFIGS = sorted((ROOT / "ds_configs").glob("*.json"))


def read(path: Path, *overrides: str) -> tuple[Recipe, Path | None]:
    parser = train.make_parser()
    return read_recipe(parser, parser.parse_args([str(path), *overrides]))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_makes_a_plan(path: Path) -> None:
    recipe, recipe_file = read(path)
    plan = make_plan(recipe, recipe_file, world_size=8, bf16_hardware=True)
    assert plan.precision == "bf16"
    assert recipe_file == path
    samples = recipe.training.micro_batch_size * recipe.training.accumulation_steps(8) * 8
    assert plan.deepspeed["train_batch_size"] == samples
    assert plan.tokens_per_step == samples * plan.lengths.row
    assert plan.deepspeed["gradient_clipping"] == (recipe.training.gradient_clipping or 0.0)
    steps = recipe.training.steps if recipe.presence.has_temperature else None
    assert recipe.presence.schedule.training_steps == steps


def test_there_are_recipes_for_zero_2_and_3() -> None:
    stages = {make_plan(*read(path), world_size=8, bf16_hardware=True).zero_stage for path in RECIPES}
    assert stages == {2, 3}


@pytest.mark.parametrize("path", DS_CONFIGS, ids=lambda path: path.stem)
def test_shipped_deepspeed_configuration_is_accepted(path: Path) -> None:
    section = read_deepspeed_json(path)
    assert path.stem.startswith(f"zero{section['zero_optimization']['stage']}")
    assert is_offloaded(section["zero_optimization"], "optimizer") == ("offload" in path.stem)
    assert path.name in (ROOT / "ds_configs" / "README.md").read_text()


def test_print_config_prints_a_recipe_that_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(RECIPES[-1]), "--training.steps", "123", "--print_config"])
    assert ended.value.code == 0
    printed = tmp_path / "printed.yaml"
    text = capsys.readouterr().out
    printed.write_text(text[text.index("data:") :])
    recipe, _ = read(printed, "--deepspeed", str(DS_CONFIGS[0]))
    assert recipe.training.steps == 123


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    """No field without words of its own: each option's help says more than its type and default."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help", "all"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    parser = train.make_parser()
    fields = [action for action in parser._actions if "." in action.dest and not action.dest.endswith("help")]
    assert len(fields) > 40
    for action in fields:
        assert f"--{action.dest}" in text
        assert action.help not in (None, ""), action.dest
        assert not str(action.help).startswith("(type:"), action.dest


def test_resolved_recipe_reads_back_from_another_place(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = train.make_parser()
    parsed = parser.parse_args([str(tiny_recipe), "--optimizer.lr", "0.25", "--presence.layers", '["a.*"]'])
    recipe, recipe_file = read_recipe(parser, parsed)
    (tmp_path / "elsewhere").mkdir()
    saved = tmp_path / "elsewhere" / "recipe.yaml"
    saved.write_text(yaml.safe_dump(resolved_recipe(parser, parsed, recipe, recipe_file)))
    monkeypatch.chdir(tmp_path / "elsewhere")
    again, _ = read(saved)
    assert again.optimizer.lr == 0.25
    assert again.presence.layers == ["a.*"]
    assert again.data == recipe.data
    assert json.loads(Path(again.deepspeed).read_text())["zero_optimization"]["stage"] == 2


@pytest.mark.parametrize(
    ("stated", "kind"),
    [
        ({}, "calibrated"),
        ({"granularity": "microbatch"}, "clip"),
        ({"preset": "uniform"}, "uniform"),
        ({"preset": "paper"}, "softmax"),
        ({"preset": "paper", "weighting": {"kind": "clip", "quantile": 0.9}}, "clip"),
        ({"weighting": {"kind": "saturating"}, "schedule": {"kind": "linear"}}, "saturating"),
    ],
)
def test_the_weight_function_of_a_resolved_recipe_reads_back(
    stated: dict[str, object], kind: str, tiny_recipe: Path
) -> None:
    """Also where every field is stated but the preset, as in the run directories of versions that had none."""
    tiny_recipe.write_text(yaml.safe_dump(yaml.safe_load(tiny_recipe.read_text()) | {"presence": stated}))
    parser = train.make_parser()
    parsed = parser.parse_args([str(tiny_recipe)])
    recipe, recipe_file = read_recipe(parser, parsed)
    resolved = resolved_recipe(parser, parsed, recipe, recipe_file)
    older = {name: value for name, value in resolved["presence"].items() if name != "preset"}
    older["weighting"] = older["weighting"] | {"kind": kind}
    for presence in (resolved["presence"], older):
        tiny_recipe.write_text(yaml.safe_dump(resolved | {"presence": presence}))
        again, _ = read(tiny_recipe)
        again.validate()
        assert again.presence.weighting_kind == kind
        assert again.presence.schedule.kind == recipe.presence.schedule.kind
        assert again.presence.weighting.quantile == recipe.presence.weighting.quantile
