"""The buffers of DeepSpeed in shared memory: left by killed ranks they are removed, in use they stay."""

import os
import time
from pathlib import Path

import pytest

from presence_ds.trainer.ranks.shared_memory import BUFFERS, FOLDER, YOUNG, clear_stale_buffers
from tests.ranks import Ranks


def port() -> str:
    return os.environ["MASTER_PORT"]


def test_buffers_of_killed_ranks_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ranks; the buffers of live ones stay."""
    monkeypatch.setenv("LOCAL_SIZE", "2")  # as a launcher says: all ranks are on one machine
    ranks = Ranks(2)
    names = [file.name for file in FOLDER.glob(f"*_{ranks.run(port)[0]}_*")]
    assert len(names) == 2
    assert all(file in FOLDER.glob(BUFFERS) for file in map(FOLDER.joinpath, names))
    clear_stale_buffers(young=0.0)
    assert all((FOLDER / name).exists() for name in names)
    ranks.close()
    clear_stale_buffers()  # too young
    assert all((FOLDER / name).exists() for name in names)
    for name in names:
        os.utime(FOLDER / name, (time.time() - 2 * YOUNG,) * 2)
    clear_stale_buffers()
    assert not any((FOLDER / name).exists() for name in names)


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "deepspeed_allreduce_buffer_0_host_1_0").touch()
    (tmp_path / "psm_something_else").touch()
    clear_stale_buffers(tmp_path, young=-1.0)
    assert [file.name for file in tmp_path.iterdir()] == ["psm_something_else"]
