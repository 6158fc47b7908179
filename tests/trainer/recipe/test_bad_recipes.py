"""Bad input: one line on standard error that names the field, exit status 1, before any rank is started."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from presence_ds import cli
from presence_ds.commands import train
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.trainer.recipe.plan import make_plan
from presence_ds.trainer.recipe.recipe import find_beside_recipe
from tests.trainer.conftest import ROOT

CASES = {
    "unknown field": (["--training.stepz", "3"], "training.stepz"),
    "wrong type": (["--training.steps", "many"], "training.steps"),
    "wrong type in the presence section": (["--presence.projection_dim", "big"], "presence.projection_dim"),
    "unknown choice": (["--presence.schedule.kind", "three_stage"], "presence.schedule.kind"),
    "switch step beyond the end": (
        ["--presence.schedule.switch_step", "61", "--presence.schedule.switch_fraction", "null"],
        "presence.schedule.switch_step is 61, beyond the end of training: it must be at most 60",
    ),
    "switch stated twice": (["--presence.schedule.switch_step", "3"], "presence.schedule.switch_fraction"),
    "steps stated twice": (["--presence.schedule.training_steps", "7"], "presence.schedule.training_steps is 7"),
    "projection dimension 0": (["--presence.projection_dim", "0"], "presence.projection_dim is 0"),
    "no layers": (["--presence.layers", "[]"], "presence.layers is empty"),
    "missing DeepSpeed file": (["--deepspeed", "nowhere.json"], "deepspeed is nowhere.json"),
    "missing data file": (['--data.sources=[{"name": "a", "path": "nowhere.jsonl"}]'], "nowhere.jsonl"),
    "no source": (["--data.sources", "[]"], "data.sources"),
    "too long for the model": (["--data.sequence_length", "65"], "data.sequence_length is 65"),
    "batch that does not divide": (
        ["--training.gradient_accumulation_steps", "null", "--training.global_batch_size", "12"],
        "training.global_batch_size is 12, which does not divide: it must be a multiple of 8",
    ),
    "batch stated twice": (["--training.global_batch_size", "16"], "training.gradient_accumulation_steps"),
    "empty micro-batch": (
        ["--training.micro_batch_size", "0"],
        "training.micro_batch_size is 0: it must be at least 1",
    ),
    "negative clipping": (["--training.gradient_clipping", "-1"], "training.gradient_clipping is -1"),
    "negative learning rate": (["--optimizer.lr", "-1"], "optimizer.lr is -1"),
    "no learning rate": (["--optimizer.lr", "0"], "optimizer.lr is 0"),
    "infinite learning rate": (["--optimizer.lr", ".inf"], "optimizer.lr is inf: it must be above 0 and finite"),
    "one beta": (["--optimizer.betas", "[0.9]"], "optimizer.betas"),
    "beta of 1": (["--optimizer.betas", "[0.9, 1.0]"], "optimizer.betas is [0.9, 1.0]"),
    "factored moments": (["--optimizer.kind", "adafactor"], "sums over rows and columns of a matrix: ZeRO flattens"),
    "unknown optimizer": (["--optimizer.kind", "adamwx"], 'optimizer.kind is "adamwx": it must be one of adamw, adam'),
    "momentum of adamw": (["--optimizer.momentum", "0.9"], "optimizer.momentum is 0.9 with kind adamw"),
    "fused nadam": (
        ["--optimizer.kind=nadam", "--optimizer.implementation=fused"],
        "optimizer.implementation is fused",
    ),
    "negative decay": (["--optimizer.weight_decay", "-0.1"], "optimizer.weight_decay is -0.1"),
    "decay of a schedule without": (
        ["--lr_schedule.decay_steps", "5"],
        "lr_schedule.decay_steps is 5 with kind cosine",
    ),
    "decay longer than the run": (
        ["--lr_schedule.kind", "wsd", "--lr_schedule.decay_steps", "59"],
        "lr_schedule.decay_steps is 59: it must be, with lr_schedule.warmup_steps 2, at most the 60",
    ),
    "inverse square root without warm-up": (
        ["--lr_schedule.kind", "inverse_sqrt", "--lr_schedule.warmup_steps", "0"],
        "lr_schedule.warmup_steps is 0",
    ),
    "decay of no step": (["--lr_schedule.decay_steps", "0"], "lr_schedule.decay_steps is 0: it must be at least 1"),
    "ratio above 1": (["--lr_schedule.min_ratio", "1.1"], "lr_schedule.min_ratio is 1.1"),
    "peak of 0": (["--logging.peak_tflops", "0"], "logging.peak_tflops is 0"),
    "profile of a rank that there is not": (
        ["--profiler.enabled", "true", "--profiler.ranks", "[0, 2]", "--num_processes", "2"],
        "profiler.ranks is [0, 2]: the last of 2 ranks is 1",
    ),
    "tables of no step": (["--wandb.table_every", "0"], "wandb.table_every is 0: it must be at least 1"),
    "stall of no time": (["--wandb.stall_minutes", "0"], "wandb.stall_minutes is 0"),
    "no trackio project": (["--trackio.project", ""], "trackio.project is empty"),
    "no such tracker": (["--comet.enabled", "true"], "comet"),
    "negative seed": (["--training.seed", "-1"], "training.seed is -1: it must be at least 0 and at most 4294967295"),
    "no run directory": (["--run_dir", ""], "run_dir is empty"),
    "no model": (["--model.config", "null"], "model.config and model.path: neither is set"),
    "model without a type": (["--model.config", "{}"], 'model.config.model_type is "None"'),
    "model of no width": (["--model.config.n_embd", "0"], "model.config describes no model that can be built"),
    "heads that do not divide": (["--model.config.n_head", "3"], "model.config describes no model that can be built"),
    "model beyond 64 bits": (["--model.config.n_embd", "1" + "0" * 30], "model.config describes no model that can"),
    "two sources of one name": (
        ['--data.sources=[{"name": "a", "path": "a.jsonl"}, {"name": "a", "path": "b.jsonl"}]'],
        'data.sources has two sources named "a"',
    ),
    "unknown noise": (['--data.noise=[{"kind": "swapped"}]'], 'data.noise[0].kind is "swapped": it must be one of shu'),
    "noise that is no section": (["--data.noise=[permuted]"], "data.noise"),
    "more noise than text": (
        ['--data.noise=[{"kind": "random", "share": 0.3}, {"share": 0.3}]'],
        "data.noise has shares of 0.6 together: they must be at most 0.5",
    ),
    "everything held out": (["--data.validation_fraction", "1"], "data.validation_fraction is 1"),
    "warm-up beyond the end": (["--lr_schedule.warmup_steps", "61"], "lr_schedule.warmup_steps is 61"),
    "evaluation every 0 steps": (
        ["--evaluation.every_steps", "0"],
        "evaluation.every_steps is 0: it must be at least 1, or null",
    ),
    "keep no checkpoint": (["--checkpoint.keep", "0"], "checkpoint.keep is 0"),
    "reference for another signal": (
        ["--reference.sources", "[lines]"],
        "reference.sources is set, and presence.signal",
    ),
    "alignment without a reference": (
        ["--presence.signal", "alignment", "--presence.strategy", "two_pass"],
        "reference.sources is not set, and presence.signal is alignment",
    ),
    "reference that is no source": (
        ["--presence.signal=alignment", "--presence.strategy=two_pass", "--reference.sources=[wiki]"],
        "reference.sources: \"wiki\" is no training source: it must be one of ['lines']",
    ),
    "ranks of scores that come too late": (["--presence.normalizer", "rank"], "presence.normalizer is rank"),
    "fp16 at ZeRO stage 0": (
        ["--training.precision", "fp16", "--deepspeed", str(ROOT / "tests" / "trainer" / "zero0.json")],
        "fp16.enabled is true",
    ),
    "checkpointing with one_pass": (["--model.activation_checkpointing", "true"], "use two_pass"),
    "compiled layer rules": (["--model.compile", "true"], "model.compile is True with presence.strategy one_pass"),
    "compiled under ZeRO-3": (
        ["--model.compile=true", "--presence.signal=loss", "--deepspeed", str(ROOT / "ds_configs" / "zero3.json")],
        "model.compile is True with zero_optimization.stage 3",
    ),
    "unknown compiler": (["--model.compile", "gcc"], 'model.compile is "gcc": it must be true, false or one of '),
    "attention misspelt": (
        ["--model.attention", "spda"],
        'model.attention is "spda": it must be one of eager, flash_attention_2, ',
    ),
    "attention that only generates": (["--model.attention", "paged|eager"], 'model.attention is "paged|eager": it'),
    "flash attention without a GPU": (
        ["--model.attention", "flash_attention_2"],
        'model.attention is "flash_attention_2", which computes gradients on an accelerator only, and there is none',
    ),
    "attention without gradients on the CPU": (
        ["--model.attention", "flex_attention"],
        'model.attention is "flex_attention", which computes gradients on an accelerator only',
    ),
    "log every 0 steps": (["--logging.every_steps", "0"], "logging.every_steps is 0"),
    "no process": (["--num_processes", "0"], "num_processes is 0"),
    "unknown model type": (["--model.config.model_type", "lama"], 'model.config.model_type is "lama"'),
    "unknown model field": (["--model.config.n_layers", "3"], "model.config.n_layers is not a field of GPT2Config"),
    "wrong type in the model": (["--model.config.n_layer", "x"], "n_layer"),
    "two models": (["--model.path", "somewhere"], "model.config and model.path"),
    "missing model": (["--model.config", "null", "--model.path", "./nowhere"], "model.path is ./nowhere"),
}


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"a{level + 1}: &a{level + 1} [" + ", ".join([f"*a{level}"] * 10) + "]" for level in range(9)
)


def fails_with_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *arguments])
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize("case", list(CASES))
def test_bad_recipe(case: str, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, expected = CASES[case]
    assert expected in fails_with_one_line([str(tiny_recipe), "--num_processes", "2", *overrides], capsys)


def test_the_recipe_these_cases_start_from_is_good(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every case above fails for its own reason: untouched, the recipe gets as far as the launcher."""
    reached: list[list[str]] = []

    def note(command: list[str], processes: int, signals: list[int]) -> int:
        reached.append(command)
        return 7

    monkeypatch.setattr("presence_ds.launch.launcher.supervise", note)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(tiny_recipe), "--num_processes", "2"])
    assert ended.value.code == 7
    (command,) = reached
    assert command[:3] == [sys.executable, "-m", "deepspeed.launcher.runner"]
    assert command[-6:] == ["--module", "presence_ds", "train", str(tiny_recipe), "--num_processes", "2"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("training: {stepz: 3}", "training.stepz"),
        ("trainin: {steps: 3}", "trainin"),
        ("training: [1", "bad.yaml is not YAML: expected ',' or ']', but got '<stream end>' (line 1)"),
        ("training:\n\tsteps: 3", "bad.yaml is not YAML: found character '\\t' that cannot start any token (line 2)"),
        ("- training", "bad.yaml holds no sections"),
        ("just words", "bad.yaml holds no sections"),
        ("", "bad.yaml holds no sections"),
        ("training: {steps: 3}\ntraining: {steps: 4}", "training stands twice in a section (line 1)"),
        ("training: {steps: 3, seed: 1, steps: 4}", "steps stands twice in a section (line 1)"),
        ("data: &d\n  noise: *d", "bad.yaml is nested more than 50 deep"),
        ("a: &a [&b [&c [*c]]]", "bad.yaml is nested more than 50 deep"),
        (LAUGHS, "or holds more than 100000 values"),
        ("[" * 2_000, "bad.yaml cannot be read as YAML: maximum recursion depth exceeded"),
        ("a: *nothing", "bad.yaml is not YAML: found undefined alias 'nothing'"),
        (
            "training: !!python/object/apply:os.system ['true']",
            "bad.yaml is not YAML: could not determine a constructor",
        ),
        ("training: {steps: 3}\n---\ndata: {}", "bad.yaml is not YAML: but found another document"),
        ("training: {on: 2}", "training has a field True: names of fields are text"),
        ("training: {steps: }", "training.steps is null: give it a value, or leave it out"),
        ("training: 5", "training is 5: it must be a section with fields such as steps"),
        ("{1: 2}", "the recipe has a field 1: names of fields are text"),
        ("\0", "bad.yaml cannot be read as YAML: unacceptable character #x0000"),
        ("training: {steps: 3}", "model.config and model.path"),
    ],
)
def test_bad_yaml(content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert expected in fails_with_one_line([str(path)], capsys)


def test_recipe_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(bytes(range(128, 256)))
    assert (
        "binary.yaml cannot be read as YAML: 'utf-8' codec can't decode byte 0x80 in position 0"
        in fails_with_one_line([str(path)], capsys)
    )
    assert "cannot be read as YAML: [Errno 21] Is a directory" in fails_with_one_line([str(tmp_path)], capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_without_permission(tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed.json"
    closed.write_text("{}")
    closed.chmod(0)
    assert "closed.json" in fails_with_one_line([str(tiny_recipe), "--deepspeed", str(closed)], capsys)
    assert "closed.json cannot be read as YAML: [Errno 13]" in fails_with_one_line([str(closed)], capsys)


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_trackers_that_are_not_installed(
    name: str, tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    line = fails_with_one_line([str(tiny_recipe), "--num_processes", "2", f"--{name}.enabled", "true"], capsys)
    assert line.endswith(f"{name}.enabled is true, and {name} is not installed: pip install presence-ds[{name}]\n")


def test_missing_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in fails_with_one_line(["nowhere.yaml"], capsys)
    assert "recipe" in fails_with_one_line([], capsys)


def test_recipe_after_its_overrides(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """jsonargparse would let the file win over what stands before it."""
    assert "training.steps" in fails_with_one_line(["--training.steps", "3", str(tiny_recipe)], capsys)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage is 4"),
        ({"zero_optimization": {"stage": 2, "overlap": True}}, "zero_optimization.overlap"),
        ({"zero_optimization": {"stage": 2, "overlap_comm": "x"}}, "zero_optimization.overlap_comm"),
        ({"fp16": {"enabled": True}}, "fp16"),
        ({"optimizer": {"type": "Adam"}}, '"optimizer"'),
        ({"scheduler": {"type": "WarmupLR"}}, '"scheduler"'),
        ({"presence": {"layers": "all"}}, '"presence"'),
        ({"wandb": {"enabled": True}}, '"wandb"'),
        ({"train_batch_size": 99}, "train_batch_size is 99"),
        ({"train_micro_batch_size_per_gpu": 3}, "training.micro_batch_size is 4"),
        ({"gradient_accumulation_steps": 5}, "training.gradient_accumulation_steps is 2"),
        ({"gradient_clipping": 0.5}, "training.gradient_clipping is 1.0"),
        ({"bf16": {"enabled": True}}, "bf16.enabled is true"),
        ({"bf16": {"enabled": "yes"}}, 'bf16.enabled is "yes": it must be true or false'),
        ({"bf16": True}, "bf16 is true: it must be an object"),
        ({"wandb": 3}, "wandb is 3: it must be an object"),
        ({"zero_optimization": []}, "zero_optimization is []: it must be an object"),
        ({"zero_optimization": None}, "zero_optimization is null: it must be an object"),
        ({"zero_optimization": {"stage": "2"}}, 'zero_optimization.stage is "2"'),
        ({"zero_optimization": {"stage": True}}, "zero_optimization.stage is true"),
        ({"zero_optimization": {"stage": 1.5}}, "zero_optimization.stage is 1.5"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "moon"}}}, "offload_optimizer.device"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, "zero_optimization.reduce_bucket_size"),
        ({"zero_optimisation": {"stage": 2}}, "did you mean zero_optimization?"),
        ({"presense": {}}, "did you mean presence?"),
        ({"sequence_parallel_sizes": 2}, "did you mean sequence_parallel_size?"),
        ({"a_field_of_ours": {}, "gradient_cliping": 1.0}, "did you mean gradient_clipping?"),
        ({"train_batch_size": "many"}, 'train_batch_size is "many"'),
        ({"gradient_clipping": float("nan")}, "gradient_clipping is NaN"),
        ({"tensor_parallel": {"autotp_size": 4}}, "autotp_size is 4"),
        ({"sequence_parallel_size": 2}, "sequence_parallel_size is 2"),
        ({"hybrid_engine": {"enabled": True}}, "hybrid_engine.enabled is true"),
        ({"torch_autocast": {"enabled": True}}, "torch_autocast.enabled is true"),
    ],
)
def test_bad_deepspeed_json(
    change: dict[str, object], expected: str, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}} | change))
    line = fails_with_one_line([str(tiny_recipe), "--num_processes", "2", "--deepspeed", str(path)], capsys)
    assert expected in line
    assert "deepspeed" in line


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "null", "", "[" * 100_000, '{"a": 1, "a"}'])
def test_deepspeed_file_that_is_no_json_object(
    content: str, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(content, encoding="latin-1")
    assert "deepspeed" in fails_with_one_line([str(tiny_recipe), "--deepspeed", str(path)], capsys)


def test_shared_values_may_be_auto_or_the_same(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    values = {"train_batch_size": "auto", "gradient_clipping": 1.0, "train_micro_batch_size_per_gpu": 4}
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}} | values))
    parser = train.make_parser()
    recipe, recipe_file = read_recipe(parser, parser.parse_args([str(tiny_recipe), "--deepspeed", str(path)]))
    plan = make_plan(recipe, recipe_file, world_size=2, bf16_hardware=True)
    assert plan.deepspeed["train_batch_size"] == 16
    assert plan.deepspeed["gradient_clipping"] == 1.0
    assert plan.precision == "fp32"


def test_deepspeed_path_beside_the_recipe_or_in_the_working_directory(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load(tiny_recipe.read_text())
    source = Path(recipe["deepspeed"])
    for place in (tiny_recipe.parent, tmp_path / "work"):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "work" if place != tiny_recipe.parent else "/")
        (place / "here.json").write_text(source.read_text())
        assert find_beside_recipe("here.json", tiny_recipe, "deepspeed") == (place / "here.json").resolve()
        (place / "here.json").unlink()
