"""`presence train` in a shell that srun has started as one task of several."""

import os
import subprocess
import sys

from tests.slurm.conftest import Jobs

SHELL = 'if [ "$SLURM_PROCID" = 0 ]; then timeout 60 "$0" -m presence_ds train tiny.yaml; echo "status $?"; fi'


def test_a_shell_among_several_tasks_is_told_what_works(jobs: Jobs) -> None:
    ours, theirs = os.openpty()
    srun = subprocess.Popen(
        ["srun", "--nodes=1", "--ntasks=2", "--pty", "bash", "-c", SHELL, sys.executable],
        cwd=jobs.work,
        env=jobs.environment | jobs.cluster.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while read := os.read(ours, 4096):
            shown += read
    except OSError:  # nobody has the terminal any more
        pass
    assert srun.wait(60) == 0
    os.close(ours)
    text = " ".join(shown.decode().split())
    assert "presence: error: this shell is task 0 of the 2 tasks of an interactive SLURM step" in text
    assert "status 1" in text
