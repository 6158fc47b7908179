"""Checkpoints that are written while training goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import OPTIONS, Train
from tests.trainer.conftest import ROOT


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_training_goes_on_and_a_kill_leaves_what_can_be_gone_on_from(
    two_ranks: Ranks, train: Train, whole: Callable[..., Path], tiny_recipe: Path, tmp_path: Path, stage: int
) -> None:
    """On a disk that takes two steps for a checkpoint, which is of the state before them, to the last bit."""
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    options = ["--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json"), "--checkpoint.every_steps", "2"]
    options += ["--checkpoint.asynchronous", "true"]
    arguments = [str(tiny_recipe), *OPTIONS, *options]
    for seen in two_ranks.run(runs.train_with_slow_disk, run_dir, copy, 5, *arguments):
        assert seen[3] == ["unfinished_step_00000002"]
        assert seen[5] == ["latest", "step_00000002", "unfinished_step_00000004"]
        assert seen[6] == ["latest", "step_00000002", "step_00000004", "step_00000006"]
    assert runs.left_by(run_dir) == runs.left_by(whole(2, stage))
    assert (copy / "checkpoints" / "latest").read_text() == "step_00000002"
    assert train(copy, stage=stage) is None
    assert runs.left_by(copy) == runs.left_by(whole(2, stage))
    assert not list((copy / "checkpoints").glob("unfinished_*"))


def test_a_checkpoint_has_the_bytes_of_one_that_training_waits_for(train: Train, tmp_path: Path) -> None:
    once = ["--training.steps", "2", "--checkpoint.every_steps=null"]
    for name in ("false", "true"):
        assert train(tmp_path / name, *once, "--checkpoint.asynchronous", name, ranks=1) is None
    files = [
        {
            file.name: file.read_bytes()
            for file in (tmp_path / name / "checkpoints" / "step_00000002").glob("*_states.pt")
        }
        for name in ("false", "true")
    ]
    assert len(files[0]) == 2
    assert files[0] == files[1]
