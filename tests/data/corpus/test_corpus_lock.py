"""Several processes and one folder: a whole corpus or a line that says who has it."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from presence_ds.data import DataConfig, open_corpus, prepare_corpus
from presence_ds.data.corpus.lock import reading, writing
from presence_ds.data.corpus.manifest import MANIFEST
from presence_ds.errors import DataError

MakeConfig = Callable[..., DataConfig]


def error_of(config: DataConfig, directory: Path, overwrite: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        prepare_corpus(config, directory, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there_before", [False, True])
def test_of_several_at_once_one_prepares(make_config: MakeConfig, tmp_path: Path, there_before: bool) -> None:
    directory = tmp_path / "corpus"
    if there_before:
        prepare_corpus(make_config(seed=7), directory)
    said: list[str] = []
    barrier = threading.Barrier(3)

    def prepare() -> None:
        barrier.wait()
        try:
            prepare_corpus(make_config(), directory)
        except DataError as error:
            said.append(str(error))

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for message in said:
        # who it is stands in the lock an instant after it is taken
        assert message.startswith(
            (f"{directory} is being prepared by process {os.getpid()} on ", f"{directory} is being prepared: ")
        )
    assert len(said) < 3
    assert open_corpus(directory).report.train["docs"].samples == len(open_corpus(directory).train)
    assert content(tmp_path) == ["corpus", "docs.jsonl"]


def test_lock_goes_with_its_process(make_config: MakeConfig, tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        with writing(directory):
            (tmp_path / ".corpus.0.partial").mkdir()
            os.write(write, b"x")
            signal.pause()
    assert os.read(read, 1) == b"x"
    message = error_of(make_config(), directory)
    assert message.startswith(f"{directory} is being prepared by process {process} on ")
    assert message.endswith(": wait for the end of that, or name another folder")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    prepare_corpus(make_config(), directory)
    assert ".corpus.lock" not in content(tmp_path)


def test_process_killed_while_it_replaced_a_corpus_loses_none(make_config: MakeConfig, tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    prepare_corpus(make_config(), directory)
    inode = (directory / MANIFEST).stat().st_ino
    os.replace(directory, tmp_path / ".corpus.0.old")
    prepare_corpus(make_config(), directory)
    assert (directory / MANIFEST).stat().st_ino == inode
    assert content(tmp_path) == ["corpus", "docs.jsonl"]
    os.replace(directory, tmp_path / ".corpus.1.old")
    message = error_of(make_config(seed=3), directory, overwrite=False)
    assert message == (
        f"{directory} holds a corpus that was made otherwise: name a new folder, or replace it by presence prepare "
        f"--overwrite"
    )


def test_corpus_that_is_read_is_not_replaced(make_config: MakeConfig, tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    prepare_corpus(make_config(), directory)
    with reading(directory):
        with reading(directory):  # several may read
            prepare_corpus(make_config(), directory)  # nothing to do
        assert f"{directory} is read by a run: " in error_of(make_config(seed=3), directory)
    with writing(directory), pytest.raises(DataError, match="corpus is being replaced by presence prepare"):
        reading(directory)
    prepare_corpus(make_config(seed=3), directory)
    with pytest.raises(DataError, match=r"nowhere holds no prepared corpus that can be read \(No such"):
        reading(tmp_path / "nowhere")


def test_file_system_without_locks(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    directory = tmp_path / "corpus"
    prepare_corpus(make_config(), directory)
    with reading(directory):
        prepare_corpus(make_config(seed=3), directory)
    assert content(tmp_path) == ["corpus", "docs.jsonl"]


def test_folder_that_cannot_be_made_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    assert "corpus cannot be written to (Not a directory: " in error_of(
        make_config(), tmp_path / "docs.jsonl" / "more" / "corpus"
    )
