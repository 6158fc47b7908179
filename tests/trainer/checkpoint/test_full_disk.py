"""Runs on a file system that fills up: what cannot be written is lost or written later, and the run goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import Ranks
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import OPTIONS, Train, interrupted, steps
from tests.trainer.conftest import read_metrics, read_scores

Whole = Callable[..., Path]


@pytest.fixture
def fills_up(two_ranks: Ranks, tiny_recipe: Path, small_disk: Path) -> Callable[..., "str | None"]:
    """Train two ranks in small_disk/run, full from the end of a step on, maybe freed at that of another."""

    def fills_up(full_step: int, freed_step: int | None, *options: str) -> str | None:
        arguments = [str(tiny_recipe), *OPTIONS, "--run_dir", str(small_disk / "run"), *options]
        errors = two_ranks.run(runs.train_on_full_disk, small_disk, full_step, freed_step, *arguments)
        assert errors[0] == errors[1]
        return errors[0]

    return fills_up


def test_a_disk_that_is_full_for_a_while(fills_up: Callable[..., "str | None"], whole: Whole, small_disk: Path) -> None:
    """No line of the metrics is lost; a checkpoint is, and the score records since the one before."""
    assert fills_up(3, 6, "--checkpoint.every_steps", "2") is None
    run_dir = small_disk / "run"
    found, expected = runs.left_by(run_dir), runs.left_by(whole())
    assert steps(run_dir) == [2, 6]
    assert found.pop("scores") == [row for row in expected.pop("scores") if row["step"] not in (3, 4)]
    assert found == expected
    assert sorted(path.name for path in (run_dir / "scores").iterdir()) == [
        f"ranks_00000-00001-steps_0000000{first}-0000000{first + 1}.parquet" for first in (1, 5)
    ]


def test_a_disk_that_stays_full(
    train: Train, fills_up: Callable[..., "str | None"], whole: Whole, small_disk: Path
) -> None:
    """The run ends with what it is for, the last checkpoint, and goes on later; it is not begun on such a disk."""
    error = fills_up(3, None, "--checkpoint.every_steps", "2")
    assert error is not None
    assert "no checkpoint of step 6 could be written" in error
    run_dir = small_disk / "run"
    assert [line["step"] for line in read_metrics(run_dir)] in ([1, 2], [1, 2, 3])
    for folder in (run_dir, small_disk / "new"):
        refused = train(folder)
        assert refused is not None
        assert "No space left on device" in refused
    (small_disk / "ballast").unlink()
    assert train(run_dir, "--checkpoint.every_steps", "2") is None
    assert runs.left_by(run_dir) == runs.left_by(whole())


def test_a_disk_without_room_for_the_summary(
    train: Train, fills_up: Callable[..., "str | None"], whole: Whole, small_disk: Path
) -> None:
    """The run has finished; started again it goes on from its checkpoint and writes what it could not."""
    run_dir = small_disk / "run"
    assert fills_up(5, None, "--checkpoint.every_steps", "4", "--checkpoint.at_end", "false") is None
    assert not (run_dir / "summary.json").exists()
    assert not list(run_dir.glob("scores/*.open"))
    assert {row["step"] for row in read_scores(run_dir)} == {1, 2, 3, 4}
    (small_disk / "ballast").unlink()
    assert train(run_dir) is None
    assert runs.left_by(run_dir) == runs.left_by(whole())


def test_records_of_more_ranks_than_share_a_file(two_ranks: Ranks, train: Train, whole: Whole, tmp_path: Path) -> None:
    """Each rank on its own here, collected every few rows; resumed with another grouping to the same records."""
    two_ranks.run(runs.share_score_files, 1, 10)
    try:
        run_dir = interrupted(whole(), tmp_path / "run", 3)
        assert train(run_dir) is None
    finally:
        two_ranks.run(runs.share_score_files, 128, 8192)
    assert runs.left_by(run_dir) == runs.left_by(whole())
    names = sorted(path.name for path in (run_dir / "scores").iterdir())
    assert [name for name in names if "steps_00000004" in name] == [
        f"ranks_0000{rank}-0000{rank}-steps_00000004-00000004.parquet" for rank in (0, 1)
    ]
    assert [name for name in names if "steps_00000003" in name] == ["ranks_00000-00001-steps_00000003-00000003.parquet"]
