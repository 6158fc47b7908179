"""The folder of compiled operators: it can be written to, and of its locks those that a kill has left are removed."""

import subprocess
import sys
from pathlib import Path

import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.ranks.extensions import clear_stale_locks, operator_folder

HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print(flush=True); time.sleep(600)"


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
        clear_stale_locks(0, tmp_path)
        assert not lock.exists()


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
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert operator_folder().is_relative_to(tmp_path)
