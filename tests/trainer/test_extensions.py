"""The lock on a compiled operator: left by a kill it is removed, held by a living process it stays."""

import subprocess
import sys
from pathlib import Path

from presence_ds.trainer.extensions import clear_stale_locks

HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print(flush=True); time.sleep(600)"


def test_a_lock_is_removed_once_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "an_operator" / "lock"
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        clear_stale_locks(0, str(tmp_path))
        assert lock.exists()
        clear_stale_locks(1, str(tmp_path))  # nothing to wait for: the holder will build the operator
        holder.kill()
        holder.wait()
        clear_stale_locks(0, str(tmp_path))
        assert not lock.exists()
