"""Damaged checkpoints: none is loaded, nothing is lost, and the newest intact one is used instead."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import Train, interrupted
from tests.trainer.conftest import read_metrics

CASES = 100


def damage(path: Path, rng: random.Random) -> str:
    """Truncate, flip a byte of, or delete the file; what was done."""
    content = path.read_bytes()
    kind = rng.choice(["truncated", "flipped", "deleted"])
    if kind == "truncated":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "flipped":
        index = rng.randrange(len(content))
        path.write_bytes(content[:index] + bytes([content[index] ^ 1 << rng.randrange(8)]) + content[index + 1 :])
    else:
        path.unlink()
    return f"{path.name} {kind}"


@pytest.mark.parametrize("stage", [2, 3])
def test_every_damage_is_seen(two_ranks: Ranks, whole: Callable[..., Path], tmp_path: Path, stage: int) -> None:
    """Random files of a checkpoint, the manifest among them; now and then of the next older checkpoint as well."""
    folder = interrupted(whole(2, stage), tmp_path / "run", 3) / "checkpoints"
    rng = random.Random(stage)
    oldest, middle, newest = sorted(folder.glob("step_*"))
    for case in range(CASES // 2):
        victims = [newest] if case % 5 else [newest, middle]
        backup = {}
        for victim in victims:
            file = rng.choice(sorted(path for path in victim.rglob("*") if path.is_file()))
            backup[file] = file.read_bytes()
            done = damage(file, rng)
        for found, warnings in two_ranks.run(runs.find, folder):
            assert found == (middle if len(victims) == 1 else oldest), done
            assert len(warnings) == len(victims)
        for file, content in backup.items():
            file.write_bytes(content)
    assert two_ranks.run(runs.find, folder)[0] == (newest, [])


def test_a_run_goes_on_before_the_damage_and_nothing_is_lost(
    two_ranks: Ranks, train: Train, whole: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = interrupted(whole(), tmp_path / "run", 4)
    checkpoints = run_dir / "checkpoints"
    shard = checkpoints / "step_00000004" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    damaged = shard.read_bytes()[:-1] + b"\x01"
    shard.write_bytes(damaged)
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 7')  # cut short by a crash
    _, (warning,) = two_ranks.run(runs.find, checkpoints)[0]
    for part in ("step_00000004 is damaged", shard.name, "going on from step_00000003", "damaged_step_00000004"):
        assert part in warning
    assert train(run_dir) is None
    assert runs.left_by(run_dir) == runs.left_by(whole())
    aside = checkpoints / "damaged_step_00000004"
    assert (aside / shard.name).read_bytes() == damaged
    assert [line["step"] for line in read_metrics(aside)] == [4, 5, 6]
    assert {file.name.split("steps_")[1] for file in (aside / "scores").iterdir()} == {
        f"{step:08d}-{step:08d}.parquet" for step in (4, 5, 6)
    }


def test_no_intact_checkpoint_is_an_error_and_not_a_new_beginning(
    train: Train, whole: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = interrupted(whole(), tmp_path / "run", 2)
    for folder in (run_dir / "checkpoints").glob("step_*"):
        (folder / "trainer_rank_00001.pt").unlink()
    before = sorted(path.relative_to(run_dir) for path in run_dir.rglob("*"))
    error = train(run_dir)
    assert error is not None
    assert "checkpoint.resume is auto and no checkpoint in" in error
    assert "step_00000002: trainer_rank_00001.pt is missing; step_00000001" in error
    assert sorted(path.relative_to(run_dir) for path in run_dir.rglob("*")) == before


def test_a_damaged_checkpoint_that_is_named_is_an_error(
    train: Train, whole: Callable[..., Path], tmp_path: Path
) -> None:
    copy = tmp_path / "step_00000002"
    shutil.copytree(whole() / "checkpoints" / "step_00000002", copy)
    with open(copy / "mp_rank_00_model_states.pt", "r+b") as file:
        file.truncate(1000)
    error = train(tmp_path / "run", "--checkpoint.resume", str(copy))
    assert error is not None
    assert "it is no intact checkpoint" in error
    assert "mp_rank_00_model_states.pt has 1000 bytes of" in error


OTHERS = {
    "tokens_per_step 512 and this run has 1024": ["--training.gradient_accumulation_steps", "4"],
    "optimizer.kind is sgd, and ": ["--optimizer.kind", "sgd"],
    "model.config.n_embd is 16, and ": ["--model.config.n_embd", "16"],
    "model.config.n_layer is 1, and ": ["--model.config.n_layer", "1"],
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(
    train: Train, whole: Callable[..., Path], tmp_path: Path, difference: str
) -> None:
    """Before anything is loaded, and with the run as it was: its recipe, metrics and checkpoints."""
    run_dir = interrupted(whole(), tmp_path / "run", 4)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    error = train(run_dir, *OTHERS[difference])
    assert error is not None
    assert difference in error
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


OTHER_MODELS = {
    "parameter transformer.wte.weight is [320, 32] there and [320, 16] here": ["--model.config.n_embd", "16"],
    "parameter transformer.h.1.ln_1.weight is [32] there and missing here": ["--model.config.n_layer", "1"],
}


def test_another_model_is_refused_without_knowing_the_recipe(
    train: Train, whole: Callable[..., Path], tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "checkpoints" / "step_00000002"
    shutil.copytree(whole() / "checkpoints" / "step_00000002", copy)
    runs.rewrite_manifest(copy, lambda content: {k: v for k, v in content.items() if k != "recipe"})
    for difference, options in OTHER_MODELS.items():
        error = train(tmp_path / "run", *options, "--checkpoint.resume", str(copy))
        assert error is not None
        assert difference in error


def test_another_zero_stage_is_refused(train: Train, whole: Callable[..., Path], tmp_path: Path) -> None:
    error = train(interrupted(whole(), tmp_path / "run", 1), stage=3)
    assert error is not None
    assert "zero_stage 2 and this run has 3" in error


def test_a_manifest_of_another_format_is_not_taken_for_damage(
    two_ranks: Ranks, whole: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = interrupted(whole(), tmp_path / "run", 2)
    runs.rewrite_manifest(run_dir / "checkpoints" / "step_00000002", lambda content: content | {"format": 99})
    assert "is of another format" in str(two_ranks.run(runs.find, run_dir / "checkpoints")[0][0])


def test_sizes_and_checksums_are_those_of_standard_tools(whole: Callable[..., Path]) -> None:
    checkpoint = whole() / "checkpoints" / "step_00000001"
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    assert set(files) == {str(path.relative_to(checkpoint)) for path in checkpoint.iterdir()} - {"manifest.json"}
    lines = "".join(f"{file['sha256']}  {name}\n" for name, file in files.items())
    subprocess.run(["sha256sum", "--check", "--strict", "-"], input=lines, text=True, cwd=checkpoint, check=True)
