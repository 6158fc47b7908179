"""The ranks of one trainer, in processes of their own as a user starts them, which work only when they are told to."""

import json
import os
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.ranks import ROOT, rendezvous
from benchmarks.trainers.setting import TrainerSetting


class Processes:
    """One trainer's ranks: each has its main thread and its heap to itself, as in a run that is no comparison."""

    def __init__(self, trainer: str, setting: TrainerSetting, folder: Path) -> None:
        """Start them and wait until they are set up; ``folder`` is the trainer's own, with ``corpus`` in it.

        Raises:
            RuntimeError: a rank failed, here or in a later call; the message ends with its output.
        """
        self._trainer = trainer
        self._log = folder.with_suffix(".log")
        self._ranks: list[Connection[Any, Any]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in rendezvous(setting.ranks):
            self._start(os.environ | setting.environment() | rank, setting, folder)
        try:
            self._receive()
        except BaseException:
            self.end()
            raise

    def turn(self) -> float:
        """Have them take the steps of a turn; seconds of the slowest."""
        self._tell()
        return max(self._receive())

    def finish(self) -> dict[str, Any]:
        """What rank 0 found, after the last turn."""
        self._tell()
        found: dict[str, Any] = self._receive()[0]
        return found

    def end(self) -> None:
        """End the processes, whatever they are doing."""
        for rank in self._ranks:
            rank.close()
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, environment: dict[str, str], setting: TrainerSetting, folder: Path) -> None:
        ours, theirs = Pipe()
        options = {"trainer": self._trainer, "setting": json.dumps(setting.as_dict()), "folder": folder}
        command = [sys.executable, "-m", "benchmarks.trainers.worker", "--pipe", str(theirs.fileno())]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, pass_fds=[theirs.fileno()], stdout=log, stderr=log
            )
        theirs.close()  # so that the end of the process ends the pipe
        self._ranks.append(ours)
        self._processes.append(process)

    def _tell(self) -> None:
        for rank in self._ranks:
            rank.send("go on")

    def _receive(self) -> list[Any]:
        try:
            return [rank.recv() for rank in self._ranks]
        except (EOFError, OSError):
            said = self._log.read_text(encoding="utf-8")[-3000:]
            raise RuntimeError(f"trainer {self._trainer} failed:\n{said}") from None
