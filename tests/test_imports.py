"""What is quick: settings are read, checked and explained without importing what only a run needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import ROOT, write_recipe

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "deepspeed",
    "wandb",
    "pyarrow",
    "accelerate",
    "tokenizers",
    "altair",
    "triton",
)
SECONDS = 3.0  # of the processor; 0.3 to 0.6 on an idle machine
REPORT = """
import sys
try:
    {code}
finally:
    print("imported:", *[name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


def run_quickly(code: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run Python code in a process of its own, which may import nothing heavy: status, output, errors."""
    process = subprocess.Popen(
        [sys.executable, "-c", REPORT.format(code=code, heavy=HEAVY), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    errors, imported = errors.rsplit("imported:", 1)
    assert not imported.split()
    assert usage.ru_utime + usage.ru_stime < SECONDS
    return process.returncode, output, errors


def presence(*arguments: str | Path) -> tuple[int, str, str]:
    """``presence ARGUMENTS``."""
    return run_quickly("from presence_ds.cli import main; main()", *arguments)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n')
    write_recipe(tmp_path / "tiny.yaml", text)
    return tmp_path / "tiny.yaml"


def test_the_package_waits_for_what_is_asked_of_it() -> None:
    status, output, _ = run_quickly(
        "import presence_ds; print(presence_ds.errors.ConfigError, presence_ds.PresenceConfig)"
    )
    assert status == 0
    assert output == "<class 'presence_ds.errors.ConfigError'> <class 'presence_ds.engine.config.PresenceConfig'>\n"


@pytest.mark.parametrize("command", [(), ("train",), ("slurm",)])
def test_help(command: tuple[str, ...]) -> None:
    status, output, errors = presence(*command, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith("usage: presence")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--training.stepz=3"], "training.stepz"),
        (["--data.sequence_length=long"], "data.sequence_length"),
        (["--presence.schedule.kind=three_stage"], "presence.schedule.kind"),
        (["--optimizer.lr=-1"], "optimizer.lr is -1"),
        (["--optimizer.kind=adamx"], "optimizer.kind is"),
        (["--data.packing=document", "--data.objective.kind=span_corruption"], "data.packing is document"),
        (['--data.sources=[{"name": "a", "path": "nowhere.jsonl"}]'], "nowhere.jsonl"),
        (["--data.sources=[]", "--data.prepared=nowhere"], "nowhere holds no prepared corpus"),
        (["--deepspeed=nowhere.json"], "deepspeed is nowhere.json"),
    ],
)
def test_a_typo(arguments: list[str], expected: str, recipe: Path) -> None:
    status, output, errors = presence("train", recipe, *arguments)
    assert (status, output) == (1, "")
    assert expected in errors
    assert errors.count("\n") == 1


def test_a_typo_in_the_recipe(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("warmup_steps:", "warmupsteps:"))
    status, _, errors = presence("estimate", recipe)
    assert status == 1
    assert "warmupsteps" in errors


def test_a_typo_in_what_is_prepared(recipe: Path, tmp_path: Path) -> None:
    status, _, errors = presence("prepare", recipe, tmp_path / "corpus", "--data.max_bad_share=2")
    assert status == 1
    assert "data.max_bad_share is 2.0" in errors


def test_a_missing_recipe() -> None:
    status, _, errors = presence("train", ROOT / "nowhere.yaml")
    assert status == 1
    assert "nowhere.yaml" in errors
