"""Runs on every rank of a pool: whole trainings without a launcher, and what they leave in a checkpoint."""

import hashlib
import io
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from presence_ds.commands import train as command
from presence_ds.commands.recipe_arguments import read_recipe, resolved_recipe
from presence_ds.errors import PresenceError
from presence_ds.trainer import run
from presence_ds.trainer.callbacks import score_records
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.checkpoint import Checkpoints
from presence_ds.trainer.callbacks.throughput import TIMINGS
from presence_ds.trainer.checkpoint.config import CheckpointConfig
from presence_ds.trainer.checkpoint.loading import convert
from presence_ds.trainer.checkpoint.manifest import _render
from presence_ds.trainer.checkpoint.resuming import find_resume
from presence_ds.trainer.checkpoint.writer import HashingFile
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.run import train_on
from presence_ds.trainer.run_directory.lock import RunLock
from presence_ds.trainer.trainer import Trainer
from tests.engine.training import full_parameters
from tests.trainer.conftest import read_metrics, read_scores

make_parser = cache(command.make_parser)  # one for all runs of a process
_ranks: Ranks | None = None


def pool_ranks() -> Ranks:
    """The ranks of this pool, made once: every `Ranks` is another process group."""
    global _ranks
    _ranks = _ranks or Ranks()
    return _ranks


def train(*arguments: str, more_callbacks: dict[str, Callback] | None = None) -> str | None:
    """``presence train ARGUMENTS`` on this rank; the message of the error that ended it, if any."""
    parser = make_parser()
    parsed = parser.parse_args(list(arguments))
    recipe, recipe_file = read_recipe(parser, parsed)
    try:
        resolved = resolved_recipe(parser, parsed, recipe, recipe_file)
        with StopSignals(recipe.stop) as signals, RunLock() as lock:
            train_on(pool_ranks(), lock, signals, recipe, recipe_file, resolved, more_callbacks)
    except PresenceError as error:
        return str(error)
    return None


def train_and_look(*arguments: str) -> dict[str, Any]:
    """`train`; the optimizer's settings after it, how far it moved the parameters, and what the run showed."""
    seen: dict[str, Any] = {}

    class Look(Callback):
        def on_train_start(self, trainer: Trainer) -> None:
            seen["start"] = full_parameters(trainer.engine)

        def on_train_end(self, trainer: Trainer) -> None:
            groups = trainer.engine.basic_optimizer.param_groups
            seen["groups"] = [{k: v for k, v in group.items() if k != "params"} for group in groups]
            seen["clipping"] = trainer.engine.optimizer.clip_grad
            end = full_parameters(trainer.engine)
            seen["moved"] = max((a - b).abs().max().item() for a, b in zip(seen.pop("start"), end, strict=True))

    with shown() as output:
        seen["error"] = train(*arguments, more_callbacks={"look": Look()})
        text = output()
    return seen | {"output": text, "rank": pool_ranks().rank}


@contextmanager
def shown() -> Iterator[Callable[[], str]]:
    """What is printed inside, also straight to the file that standard error is, as warnings are."""
    output = io.StringIO()
    with TemporaryFile() as file, redirect_stdout(output), redirect_stderr(output):
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: output.getvalue() + os.pread(file.fileno(), 2**20, 0).decode()
        finally:
            os.dup2(before, 2)
            os.close(before)


def left_by(run_dir: Path, *, after: int = 0) -> dict[str, Any]:
    """Everything a run leaves that must not depend on interruptions, of the steps after ``after``.

    The model's, optimizer's and PRESENCE's state come as digests of DeepSpeed's files in the last checkpoint.
    """
    lines = [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(run_dir)]
    last = run_dir / "checkpoints" / (run_dir / "checkpoints" / "latest").read_text()
    return {
        "metrics": [line for line in lines if line["step"] > after],
        "scores": [row for row in read_scores(run_dir) if row["step"] > after],
        "state": {file.name: digest_file(file) for file in sorted(last.glob("*_states.pt"))},
        "summary": json.loads((run_dir / "summary.json").read_text())["stages"],
    }


def digest_file(path: Path) -> str:
    """Digest of everything in a file of torch.save, bit for bit; pickle's own bytes depend on what is shared."""
    digest = hashlib.sha256()

    def take(value: Any) -> None:
        digest.update(type(value).__name__.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        elif isinstance(value, dict):
            for key, inner in value.items():
                take(key)
                take(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                take(inner)
        elif hasattr(value, "__dict__"):
            take(vars(value))
        else:
            digest.update(repr(value).encode())

    take(torch.load(path, map_location="cpu", weights_only=False))
    return digest.hexdigest()


def find(folder: Path, resume: str = "auto") -> tuple[Path | str | None, list[str]]:
    """The checkpoint that a run would go on from, or the error; and what it would warn of."""
    warnings: list[str] = []
    try:
        found = find_resume(CheckpointConfig(resume=resume), folder, pool_ranks(), warnings.append)
    except PresenceError as error:
        return str(error), warnings
    return (None if found is None else found.path), warnings


def rewrite_manifest(checkpoint: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change an intact manifest so that it stays intact."""
    content = json.loads((checkpoint / "manifest.json").read_text())
    del content["sha256"]
    (checkpoint / "manifest.json").write_text(_render(change(content)))


def refuse_large_files(step: int | None) -> None:
    """From now on the kernel lets rank 1 write no more than 20 kB into a file while it saves after ``step``.

    None: nothing is refused any more, and nothing of it stays in the process, which runs other tests too.
    """
    Checkpoints.on_step_end = _on_step_end if step is None else _with_limit(_on_step_end, step)


_on_step_end = Checkpoints.on_step_end


def _with_limit(on_step_end: Callable[..., None], step: int) -> Callable[..., None]:
    def limited(self: Checkpoints, trainer: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if trainer.step == step and trainer.ranks.rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            on_step_end(self, trainer)
            while self._saver.busy:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


def fill(disk: Path, leave: int) -> None:
    """Leave that many bytes free."""
    (disk / "ballast").unlink(missing_ok=True)
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


class FullDisk(Callback):
    """A disk that is full from the end of a step on, until the end of another."""

    def __init__(self, disk: Path, full_step: int, freed_step: int | None) -> None:
        self.disk, self.full_step, self.freed_step = disk, full_step, freed_step

    def on_step(self, trainer: Any, metrics: Any) -> None:
        if trainer.ranks.is_main and trainer.step == self.full_step:
            fill(self.disk, 0)
        if trainer.ranks.is_main and trainer.step == self.freed_step:
            (self.disk / "ballast").unlink()


def train_on_full_disk(disk: Path, full_step: int, freed_step: int | None, *arguments: str) -> str | None:
    """`train` with a `FullDisk`."""
    return train(*arguments, more_callbacks={"disk": FullDisk(disk, full_step, freed_step)})


class SlowDisk(Callback):
    """A disk that takes two optimizer steps for a checkpoint, and a look at the run after one of them.

    Attributes:
        seen: by step, the names in ``checkpoints`` after it.
    """

    def __init__(self, run_dir: Path, copy: Path, copied_step: int) -> None:
        """``run_dir`` is copied to ``copy`` after step ``copied_step``: what a kill would leave then."""
        self.run_dir, self.copy, self.copied_step = run_dir, copy, copied_step
        self.step = self.last_step = 0
        self.seen: dict[int, list[str]] = {}

    def on_train_start(self, trainer: Any) -> None:
        self.last_step = trainer.total_steps

    def on_step(self, trainer: Any, metrics: Any) -> None:
        self.step = trainer.step

    def on_step_end(self, trainer: Any) -> None:
        names = sorted(path.name for path in (self.run_dir / "checkpoints").iterdir())
        self.seen[trainer.step] = [name for name in names if name == "latest" or "step_" in name]
        if trainer.step == self.copied_step:
            trainer.ranks.barrier()
            if trainer.ranks.is_main:
                shutil.copytree(self.run_dir, self.copy)
            trainer.ranks.barrier()

    def wait(self, checkpoint: Path) -> None:
        """What opening a file of ``checkpoint`` takes, whenever it is that the thread comes to it."""
        until, end = min(int(checkpoint.name[-8:]) + 2, self.last_step), time.monotonic() + 60
        while self.step < until:
            assert time.monotonic() < end, "training waits for the disk"
            time.sleep(0.01)


def train_with_slow_disk(run_dir: Path, copy: Path, copied_step: int, *arguments: str) -> dict[int, list[str]]:
    """Train with asynchronous checkpoints onto a `SlowDisk`; what it has seen on this rank."""
    disk = SlowDisk(run_dir, copy, copied_step)
    opened = HashingFile.__init__

    def slow(self: HashingFile, path: Path) -> None:
        if path.name.startswith("trainer_rank"):  # the last file of each rank
            disk.wait(path.parent)
        opened(self, path)

    HashingFile.__init__ = slow
    try:
        assert train(*arguments, "--run_dir", str(run_dir), more_callbacks={"disk": disk}) is None
    finally:
        HashingFile.__init__ = opened
    return disk.seen


def restored(again: Path, *arguments: str) -> dict[str, Any]:
    """What `train` has in memory before its first step, which DeepSpeed saves to the folder ``again``."""
    seen: dict[str, Any] = {}

    def look(trainer: Trainer) -> None:
        engine, optimizer = trainer.engine, trainer.engine.basic_optimizer
        engine.save_checkpoint(str(again.parent), tag=again.name)
        seen["parameters"] = [tensor.tolist() for tensor in full_parameters(engine)]
        seen["weight decay"] = [group["weight_decay"] for group in optimizer.param_groups]
        seen["steps"] = {float(state["step"]) for state in optimizer.state.values()}
        seen["shared steps"] = len({id(state["step"]) for state in optimizer.state.values()}) - len(optimizer.state)
        seen["presence"] = engine.presence.state_dict()
        seen["learning rate"] = engine.get_lr()[0]
        seen["step"] = trainer.step

    fit, Trainer.fit = Trainer.fit, look
    try:
        assert train(*arguments) is None
    finally:
        Trainer.fit = fit
    return seen


def whole_tensors(checkpoint: Path, work: Path) -> dict[str, Any]:
    """Every parameter and moment of a checkpoint, put together by DeepSpeed's converter."""
    convert(checkpoint, work / "universal")
    found = {}
    for file in sorted((work / "universal" / "zero").glob("*/*.pt")):
        value = torch.load(file, weights_only=False)
        tensor = value["param"] if isinstance(value, dict) else value
        found[f"{file.parent.name}/{file.name}"] = (list(tensor.shape), tensor.flatten().tolist())
    return found


def share_score_files(ranks: int, rows: int) -> None:
    """From now on as many ranks share a file of score records, and collect them when each has as many rows."""
    run.RANKS_PER_FILE, score_records.ROWS_KEPT = ranks, rows
