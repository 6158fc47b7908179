"""What is kept, and what happens when a checkpoint cannot be written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import Train, interrupted, steps
from tests.trainer.conftest import read_metrics


def test_the_newest_are_kept_and_every_mth_forever(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--checkpoint.keep", "1", "--checkpoint.keep_every", "2", ranks=1) is None
    assert steps(tmp_path / "run") == [2, 4, 6]
    assert train(tmp_path / "other", "--checkpoint.keep", "2", ranks=1) is None
    assert steps(tmp_path / "other") == [5, 6]
    assert (tmp_path / "other" / "checkpoints" / "latest").read_text() == "step_00000006"


@pytest.mark.parametrize(("stage", "asynchronous"), [(2, "false"), (3, "false"), (2, "true")])
def test_a_rank_that_cannot_write_costs_a_checkpoint_and_no_more(
    two_ranks: Ranks, train: Train, whole: Callable[..., Path], tmp_path: Path, stage: int, asynchronous: str
) -> None:
    """The kernel refuses rank 1 more than 20 kB per file at step 4: the run goes on and is the undisturbed one."""
    run_dir = tmp_path / "run"
    two_ranks.run(runs.refuse_large_files, 4)
    try:
        assert train(run_dir, "--checkpoint.asynchronous", asynchronous, stage=stage) is None
    finally:
        two_ranks.run(runs.refuse_large_files, None)
    assert steps(run_dir) == [1, 2, 3, 5, 6]
    assert not list((run_dir / "checkpoints").glob("unfinished_*"))
    expected = runs.left_by(whole(2, stage))
    assert runs.left_by(run_dir) == expected


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_a_run_without_its_last_checkpoint_ends_with_an_error_and_can_go_on(
    two_ranks: Ranks, train: Train, whole: Callable[..., Path], tmp_path: Path, asynchronous: str
) -> None:
    run_dir = tmp_path / "run"
    two_ranks.run(runs.refuse_large_files, 6)
    try:
        error = train(run_dir, "--checkpoint.asynchronous", asynchronous)
    finally:
        two_ranks.run(runs.refuse_large_files, None)
    assert error is not None
    assert "no checkpoint of step 6 could be written: File too large" in error
    assert "(rank 1)" in error
    assert not (run_dir / "summary.json").exists()
    assert train(run_dir) is None
    assert runs.left_by(run_dir) == runs.left_by(whole())


def test_a_full_disk_is_seen_before_a_checkpoint_is_begun(
    train: Train, whole: Callable[..., Path], small_disk: Path
) -> None:
    run_dir = interrupted(whole(), small_disk / "run", 2)
    runs.fill(small_disk, 400_000)  # a checkpoint takes 700 kB
    error = train(run_dir)
    assert error is not None
    assert "GiB free and a checkpoint takes about" in error
    assert steps(run_dir) == [1, 2]
    assert [line["step"] for line in read_metrics(run_dir)] == [1, 2, 3, 4, 5, 6]
    (small_disk / "ballast").unlink()
    assert train(run_dir, "--checkpoint.keep", "2") is None
    assert runs.left_by(run_dir) == runs.left_by(whole())


def test_a_disk_that_fills_up_during_a_save(train: Train, whole: Callable[..., Path], small_disk: Path) -> None:
    """Without a checkpoint in run_dir to go by, 600 kB are expected to do."""
    run_dir = interrupted(whole(), small_disk / "run", 6)
    shutil.rmtree(run_dir / "checkpoints")
    runs.fill(small_disk, 650_000)
    resume = ["--checkpoint.resume", str(whole() / "checkpoints" / "step_00000005"), "--checkpoint.every_steps=null"]
    error = train(run_dir, *resume)
    assert error is not None
    assert "no checkpoint of step 6 could be written: No space left on device" in error
    assert not list((run_dir / "checkpoints").glob("*step_*"))
    (small_disk / "ballast").unlink()
    assert train(run_dir, *resume) is None
    assert runs.left_by(run_dir) == runs.left_by(whole())
