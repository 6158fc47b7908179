"""Runs that are killed again and again, and resumed, until they end: each must be the run that nothing disturbed.

    python -m tests.soak.kill --kills 50 --seed 0

Two ranks, ZeRO 1 to 3 in turn. SIGKILL strikes one rank, or all at once as when a machine goes down, or now and then
the launcher, whose ranks live on until they too are killed, while the run directory must be refused to another run. A
share of the kills is aimed at saves, by watching for the folder of an unfinished checkpoint; the others fall at any
time, start and resumption included. Every start saves in the background or not, at random. Ranks are forked from a
process that has everything imported, and go through the same entry point; a launcher's are started by `presence
train`. Prints what was struck and ends with the count; exit status 1 and the log of the ranks if a resume fails or
anything a run leaves differs.
"""

import argparse
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from tests.ranks import forked, free_port
from tests.trainer.checkpoint.runs import left_by
from tests.trainer.conftest import ROOT, WORDS, write_recipe

STEPS = 16
OPTIONS = [
    *("--training.steps", str(STEPS), "--checkpoint.every_steps", "2", "--logging.every_steps", "1"),
    *("--evaluation.every_steps", "8", "--training.gradient_accumulation_steps", "2"),
]
RANKS = 2
GRACE = 40.0  # seconds for the other rank to see that its peer has gone
TIMEOUT = 600.0


class SoakError(Exception):
    """A resume failed, or a run left something else than the undisturbed one."""


def rank_main(arguments: list[str], rank: int, port: int, log: str) -> None:
    """One rank of `presence train`, in a forked process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from presence_ds.cli import main

    main(["train", *arguments])


@dataclass
class Soak:
    """Runs in ``work`` and what has been done to them.

    Attributes:
        struck: how often each victim was struck, and how often during a save.
    """

    work: Path
    rng: random.Random
    launchers: float  # share of the kills that strike a launcher
    struck: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def __post_init__(self) -> None:
        extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR", ""))  # a kill may strike while one is being loaded
        if extensions.is_dir():
            shutil.copytree(extensions, self.work / "extensions")
        os.environ["TORCH_EXTENSIONS_DIR"] = str(self.work / "extensions")
        corpus = self.work / "lines.jsonl"
        with open(corpus, "w") as file:
            for index in range(400):
                words = [WORDS[(index * 7 + position * (1 + index % 5)) % len(WORDS)] for position in range(40)]
                file.write(json.dumps({"text": f"{index} " + " ".join(words), "id": f"d{index}"}) + "\n")
        self._recipe = write_recipe(self.work / "tiny.yaml", corpus)

    def go(self, stage: int, kills: int) -> None:
        """Undisturbed once, then as often as it takes for that many kills.

        Raises:
            SoakError: see there.
        """
        reference = self.work / f"zero{stage}"
        for _ in range(2):  # the first start may compile an operator, which takes longer than the run
            shutil.rmtree(reference, ignore_errors=True)
            began = time.monotonic()
            self._finish(self._start(reference, stage))
            duration = time.monotonic() - began
        expected = left_by(reference)
        left = kills
        while left:
            run_dir = self.work / f"zero{stage}-run{self.runs}"
            self.runs += 1
            finished = False
            while not finished:
                if not left:
                    self._finish(self._start(run_dir, stage))
                    break
                struck = self._strike(run_dir, stage, duration)
                left -= struck
                finished = not struck or (run_dir / "summary.json").exists()  # killed on its way out
            found = left_by(run_dir)
            for what, value in expected.items():
                if found[what] != value:
                    raise SoakError(f"{run_dir}: {what} differ from {reference}")
            print(f"ZeRO-{stage}: run {self.runs} is the undisturbed one, to the last bit", flush=True)

    def _arguments(self, run_dir: Path, stage: int) -> list[str]:
        zero = ["--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json")]
        background = ["--checkpoint.asynchronous", self.rng.choice(["true", "false"])]
        return [str(self._recipe), *OPTIONS, *zero, *background, "--run_dir", str(run_dir)]

    def _start(self, run_dir: Path, stage: int) -> list[BaseProcess]:
        port = free_port()
        self._log = self.work / "ranks.log"
        self._log.unlink(missing_ok=True)
        arguments = self._arguments(run_dir, stage)
        return [forked(rank_main, arguments, rank, port, str(self._log)) for rank in range(RANKS)]

    def _finish(self, ranks: list[BaseProcess]) -> None:
        for process in ranks:
            process.join(TIMEOUT)
        if any(process.exitcode != 0 for process in ranks):
            raise SoakError(f"a run failed: {[process.exitcode for process in ranks]}\n{self._log.read_text()}")

    def _strike(self, run_dir: Path, stage: int, duration: float) -> bool:
        """Start or resume, and kill; False if the run had ended by then."""
        if self.rng.random() < self.launchers:
            return self._strike_launcher(run_dir, stage, duration)
        ranks = self._start(run_dir, stage)
        saving = self._wait(run_dir, duration, lambda: all(process.exitcode is None for process in ranks))
        if any(process.exitcode is not None for process in ranks):
            self._finish(ranks)
            return False
        victims = self.rng.choice([[0], [1], [0, 1]])
        for rank in victims:
            ranks[rank].kill()
        for process in ranks:
            process.join(GRACE)
        for process in ranks:
            if process.exitcode is None:
                self.struck["(a rank waited for a peer that was gone)"] += 1
                process.kill()
                process.join()
        self._count("all ranks" if len(victims) == RANKS else f"rank {victims[0]}", saving, run_dir)
        return True

    def _strike_launcher(self, run_dir: Path, stage: int, duration: float) -> bool:
        command = [sys.executable, "-m", "presence_ds", "train", *self._arguments(run_dir, stage)]
        with open(self.work / "ranks.log", "w") as log:
            launcher = subprocess.Popen(
                [*command, "--num_processes", str(RANKS)], stdout=log, stderr=log, start_new_session=True
            )
        before = read_lock(run_dir)
        while launcher.poll() is None and read_lock(run_dir) in (b"", before):  # it takes long to start
            time.sleep(0.01)
        saving = self._wait(run_dir, duration, lambda: launcher.poll() is None)
        if launcher.poll() is not None:
            if launcher.returncode != 0:
                raise SoakError(f"a launched run failed:\n{(self.work / 'ranks.log').read_text()}")
            return False
        ranks, launchers = [], [psutil.Process(launcher.pid)]
        for child in launchers[0].children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                (ranks if "RANK" in child.environ() else launchers).append(child)
        for process in launchers:
            process.kill()
        time.sleep(self.rng.uniform(0.0, 1.0))
        free = not in_use(run_dir)
        if free and all(process.is_running() for process in ranks) and not (run_dir / "summary.json").exists():
            raise SoakError(f"{run_dir}: its ranks live and another run may use it")
        for process in ranks:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(ranks)
        launcher.wait()
        self._count("launcher", saving, run_dir)
        return True

    def _wait(self, run_dir: Path, duration: float, alive: object) -> bool:
        """Until a random instant: any, or one within a save; whether it was one."""
        assert callable(alive)
        aimed = self.rng.random() < 0.5
        until = time.monotonic() + self.rng.uniform(0.0, duration)
        while alive() and time.monotonic() < until:
            time.sleep(0.001)
        while aimed and alive():
            if any(run_dir.glob("checkpoints/unfinished_*")):
                time.sleep(self.rng.uniform(0.0, 0.05))
                return True
            time.sleep(0.0005)
        return False

    def _count(self, victim: str, saving: bool, run_dir: Path) -> None:
        left = any(run_dir.glob("checkpoints/unfinished_*"))
        self.struck[victim] += 1
        self.struck["(aimed at a save)"] += saving
        self.struck["(left an unfinished checkpoint)"] += left
        newest = max((path.name for path in run_dir.glob("checkpoints/step_*")), default="no checkpoint")
        print(f"  killed {victim}{' while saving' if left else ''}; {newest}", flush=True)

    @property
    def count(self) -> int:
        """Kills so far."""
        return sum(number for victim, number in self.struck.items() if not victim.startswith("("))


def in_use(run_dir: Path) -> bool:
    """Whether another run would have to wait for the directory."""
    with open(run_dir / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_lock(run_dir: Path) -> bytes:
    """What the lock file says: which run holds it, or held it when it was killed."""
    lock = run_dir / "lock"
    return lock.read_bytes() if lock.exists() else b""


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launchers", type=float, default=0.15, help="share of the kills that strike a launcher")
    arguments = parser.parse_args()
    stages = (1, 2, 3)
    with tempfile.TemporaryDirectory() as work:
        soak = Soak(Path(work), random.Random(arguments.seed), arguments.launchers)
        try:
            for number, stage in enumerate(stages):
                share = (arguments.kills * (number + 1)) // len(stages) - (arguments.kills * number) // len(stages)
                soak.go(stage, share)
        except SoakError as error:
            sys.exit(f"FAILED after {soak.count} kills: {error}")
    print(f"{soak.count} kills, {soak.runs} runs, every resume succeeded and every run is the undisturbed one")
    for victim, number in sorted(soak.struck.items()):
        print(f"  {number:4d}  {victim}")


if __name__ == "__main__":
    main()
