import random
from pathlib import Path

import numpy as np
import pytest
import torch

from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.checkpoint import (
    CheckpointConfig,
    checkpoint_step,
    commit,
    complete_checkpoints,
    find_resume,
    load_random_state,
    random_state,
)


def write_checkpoint(folder: Path, step: int) -> Path:
    unfinished = folder / f"unfinished_step_{step:08d}"
    (unfinished / "sub").mkdir(parents=True)
    (unfinished / "weights.pt").write_bytes(b"w" * 100)
    (unfinished / "sub" / "states.pt").write_bytes(b"s" * 50)
    final = folder / f"step_{step:08d}"
    commit(unfinished, final, step=step, world_size=2)
    return final


def test_commit_renames_and_points_to_the_new_checkpoint(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path, 5), write_checkpoint(tmp_path, 10)
    assert complete_checkpoints(tmp_path) == [first, second]
    assert (tmp_path / "latest").read_text() == "step_00000010"
    assert checkpoint_step(second) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", first.name, second.name]


def test_resume_takes_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path, 5), write_checkpoint(tmp_path, 10)
    auto = CheckpointConfig(resume="auto")
    assert find_resume(auto, tmp_path, 2) == second
    with open(second / "sub" / "states.pt", "r+b") as file:
        file.truncate(49)
    assert find_resume(auto, tmp_path, 2) == first
    (first / "weights.pt").unlink()
    assert find_resume(auto, tmp_path, 2) is None
    with pytest.raises(ConfigError, match=r"checkpoint\.resume is .*: it is no complete checkpoint"):
        find_resume(CheckpointConfig(resume=str(second)), tmp_path, 2)


def test_resume_never_and_by_path(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 10)
    assert find_resume(CheckpointConfig(resume="never"), tmp_path, 2) is None
    assert find_resume(CheckpointConfig(resume=str(first)), tmp_path / "other", 2) == first


def test_resume_with_another_number_of_ranks(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    with pytest.raises(ConfigError, match=r"checkpoint\.resume: .* was written by 2 ranks and this run has 4"):
        find_resume(CheckpointConfig(), tmp_path, 4)


def test_random_states_survive_a_file_that_is_loaded_safely(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    torch.save(random_state(), tmp_path / "random.pt")
    expected = draw()
    assert draw() != expected
    load_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert draw() == expected
