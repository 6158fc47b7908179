"""What ranks print, on a disk without room for it."""

import os
from pathlib import Path

import pytest

from presence_ds.trainer.ranks.rank_log import RankLog, print_error
from tests.ranks import forked


def prints(path: Path, redirected: bool) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    with RankLog(path, redirected=redirected):
        print("a line", flush=True)
        if path.is_file() and redirected:
            os.write(1, b"of C++\n")
        print_error("an error")
    os._exit(0)


@pytest.mark.parametrize("redirected", [True, False])
@pytest.mark.parametrize("name", ["full", "log", "missing/log"])
def test_printing_ends_no_rank(name: str, redirected: bool, tmp_path: Path) -> None:
    """Into a log, or a job's log, on a full disk, or where there is no folder for it."""
    path = tmp_path / name
    if name == "full":
        path.symlink_to("/dev/full")
    process = forked(prints, path, redirected)
    process.join(60)
    assert process.exitcode == 0
    if name == "log" and redirected:
        assert path.read_text() == "a line\nof C++\n"
