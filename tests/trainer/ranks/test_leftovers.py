"""What killed processes leave: locks of compiled operators and buffers of DeepSpeed go, those that are in use stay."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.ranks.leftovers import (
    BUFFERS,
    FOLDER,
    LOCKED_BY_EXISTENCE,
    YOUNG,
    clear_stale_buffers,
    clear_stale_locks,
    operator_folder,
)
from tests.ranks import Ranks

by_existence = pytest.mark.skipif(
    not LOCKED_BY_EXISTENCE, reason="the kernel ends locks of this torch with their holder"
)
HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print(flush=True); time.sleep(600)"


@by_existence
def test_a_lock_is_removed_once_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "an_operator" / "lock"
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        clear_stale_locks(0, tmp_path)
        assert lock.exists()
        clear_stale_locks(1, tmp_path)  # nothing to wait for: the holder will build the operator
        holder.kill()
        holder.wait()
        ahead = time.time() + 3600  # of a clock that has been set back since
        os.utime(lock, (ahead, ahead))
        clear_stale_locks(0, tmp_path)
        assert not lock.exists()


@by_existence
def test_a_holder_may_have_files_that_this_user_may_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log, say, which somebody else has opened for it; from root nothing can be hidden in earnest."""
    lock, log = tmp_path / "an_operator" / "lock", tmp_path / "log"
    lock.parent.mkdir()
    look = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path) == str(log):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **options)

    with open(log, "w") as err:
        holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, stderr=err)
    assert holder.stdout is not None
    with holder, monkeypatch.context() as patch:
        holder.stdout.readline()
        patch.setattr(os, "stat", stat)
        clear_stale_locks(0, tmp_path)
        holder.kill()
        assert lock.exists()


@pytest.mark.parametrize("name", ["file/inside", "/proc/presence_ds"])
def test_a_folder_that_cannot_be_written_to_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / name))
    with pytest.raises(ConfigError, match="set TORCH_EXTENSIONS_DIR") as raised:
        operator_folder()
    assert name in str(raised.value)


def test_without_torch_extensions_dir_it_is_the_cache_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no folder of the working directory, where the lock of a run would be taken for that of an operator."""
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert operator_folder().is_relative_to(tmp_path)


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


@by_existence
def test_ranks_of_tests_do_not_wait_for_a_killed_compiler(
    one_rank: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_rank.run(port)  # has the operator compiled, which takes long
    compiled = tmp_path / "compiled"
    shutil.copytree(operator_folder(), compiled)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(compiled))
    locks = [folder / "lock" for folder in compiled.iterdir()]
    assert locks
    for lock in locks:
        lock.touch()
    ranks = Ranks(1)
    try:
        ranks.run(port)
    finally:
        ranks.close()
    assert not any(lock.exists() for lock in locks)


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "deepspeed_allreduce_buffer_0_host_1_0").touch()
    (tmp_path / "psm_something_else").touch()
    clear_stale_buffers(tmp_path, young=-1.0)
    assert [file.name for file in tmp_path.iterdir()] == ["psm_something_else"]
