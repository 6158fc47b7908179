import json
import tracemalloc
from pathlib import Path

import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.run_directory.layout import RunDirectory, score_file_name, score_file_steps

OPEN = f"_{score_file_name((0, 7), 41)}.open"


def unfinished_run(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.claim(training_steps=100, may_resume=True)
    directory.recipe.write_text("run_dir: x\n")
    directory.metrics.write_text(
        "".join(json.dumps({"step": step}) + "\n" for step in range(10, 60, 10)) + '{"step": 6'
    )
    directory.scores.mkdir()
    for name in (score_file_name((0, 7), 1, 20), "rank_00000-steps_00000021-00000040.parquet", OPEN):
        (directory.scores / name).write_text("x")
    for name in ("step_00000020", "step_00000040", "unfinished_step_00000060"):
        (directory.checkpoints / name).mkdir(parents=True)
    return directory


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    directory = unfinished_run(tmp_path / "run")
    directory.discard_after(40)
    assert [json.loads(line)["step"] for line in directory.metrics.read_text().splitlines()] == [10, 20, 30, 40]
    assert sorted(map(score_file_steps, directory.scores.iterdir())) == [(1, 20), (21, 40)]
    assert sorted(folder.name for folder in directory.checkpoints.iterdir()) == ["step_00000020", "step_00000040"]


def test_later_lines_that_belong_to_the_run_stay(tmp_path: Path) -> None:
    """Whatever order a crash has left them in; a damaged checkpoint keeps those that are dropped."""
    directory = unfinished_run(tmp_path / "run")
    steps = [10, 30, 20, 50, 40]
    directory.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps) + '{"step": 6')
    directory.discard_after(20, [directory.checkpoints / "step_00000040"])
    (aside,) = directory.checkpoints.glob("damaged_*")
    for path, expected in ((directory.metrics, [10, 20]), (aside / "metrics.jsonl", [30, 50, 40])):
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == expected


def test_long_files_are_not_held_in_memory(tmp_path: Path) -> None:
    """What stays of tracked.jsonl may be gigabytes."""
    directory = unfinished_run(tmp_path / "run")
    directory.tracked.write_text("".join(json.dumps({"step": step, "x": "x" * 10_000}) + "\n" for step in range(1000)))
    size = directory.tracked.stat().st_size
    tracemalloc.start()
    directory.discard_after(990)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 10
    assert json.loads(directory.tracked.read_text().splitlines()[-1])["step"] == 990


def test_starting_anew_drops_everything_written(tmp_path: Path) -> None:
    directory = unfinished_run(tmp_path / "run")
    directory.discard_after(0)
    assert directory.metrics.read_text() == ""
    assert not any(directory.scores.iterdir())
    assert not any(directory.checkpoints.iterdir())


def test_an_unfinished_run_may_go_on_only_if_resuming_is_allowed(tmp_path: Path) -> None:
    directory = unfinished_run(tmp_path / "run")
    directory.claim(training_steps=100, may_resume=True)
    with pytest.raises(ConfigError, match=r"run_dir is .*: it holds a run already and checkpoint\.resume is never"):
        directory.claim(training_steps=100, may_resume=False)


def test_a_finished_run_is_not_overwritten_but_may_be_prolonged(tmp_path: Path) -> None:
    directory = unfinished_run(tmp_path / "run")
    directory.summary.write_text(json.dumps({"steps": 100}))
    with pytest.raises(ConfigError, match=r"run_dir is .*: it holds a run that has finished its 100 steps"):
        directory.claim(training_steps=100, may_resume=True)
    directory.claim(training_steps=101, may_resume=True)


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"run_dir is .*: it holds other files and no run"):
        RunDirectory(tmp_path).claim(training_steps=1, may_resume=True)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"run_dir is .*: it cannot be made"):
        RunDirectory(tmp_path / "file" / "run").claim(training_steps=1, may_resume=True)
