"""What a run is doing, from any node that sees its directory, which is only read."""

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from presence_ds.errors import ConfigError
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.run_directory.lock import BEAT, SILENCE, read_record
from presence_ds.trainer.status.metrics_lines import last_line, spread_lines

CURVE = 48  # points of the loss
State = Literal["running", "finished", "stopped", "dead", "not started"]


@dataclass(frozen=True)
class Status:
    """A run as its directory shows it.

    Attributes:
        run_dir: absolute.
        state: dead is a run that has ended without a word, or whose machine has.
        told: what more there is to say of the state.
        step, total_steps: optimizer steps done by the last logged line, and planned; 0 before the first line.
        metrics: the last line of metrics.jsonl; empty before the first.
        validation: the last line that has figures of the validation split; empty without.
        curve: (step, loss) of at most `CURVE` lines of the whole run.
        checkpoint: name of the newest complete one.
        slurm_job: id of the job that was started last in this directory.
        logged_ago: seconds since the last line, by the clocks of the file system and of this machine.
    """

    run_dir: Path
    state: State
    told: str = ""
    step: int = 0
    total_steps: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    curve: list[tuple[int, float]] = field(default_factory=list)
    checkpoint: str | None = None
    slurm_job: str | None = None
    logged_ago: float | None = None

    @property
    def eta(self) -> float | None:
        """Seconds to the last step; None for a run that is not in progress, or does not know yet."""
        return self.metrics.get("eta(s)") if self.state == "running" else None


def read_status(paths: Sequence[Path], *, silence: float = SILENCE) -> list[Status]:
    """Status of the runs in ``paths``.

    A run of this machine is alive if its process is, and its heart has beaten lately, and dead if neither is so. Of any
    other the heart has to beat while this waits, at most ``silence`` seconds for all of them together.

    Raises:
        ConfigError: one of ``paths`` holds no run.
    """
    directories = [RunDirectory(path) for path in paths]
    for directory in directories:
        try:
            is_run = directory.recipe.is_file()
        except OSError as error:
            raise ConfigError(f"{directory.path} cannot be read ({error.strerror})") from None
        if not is_run:
            raise ConfigError(f"{directory.path} holds no run: it has no {directory.recipe.name}")
    records = [read_record(directory.lock) for directory in directories]
    alive = [_lives_here(record, directory.lock) for record, directory in zip(records, directories, strict=True)]
    deadline = time.monotonic() + silence
    while None in alive and time.monotonic() < deadline:
        time.sleep(min(BEAT / 5, silence))
        for place, directory in enumerate(directories):
            if alive[place] is None and (now := read_record(directory.lock)) != records[place]:
                alive[place], records[place] = bool(now), now  # an empty file is a run that has just ended
    return [
        _status(directory, record, bool(lives))
        for directory, record, lives in zip(directories, records, alive, strict=True)
    ]


def _lives_here(record: dict[str, Any], lock: Path) -> bool | None:
    """Whether the run that wrote ``record`` into ``lock`` is alive; None where only its heart can tell.

    That is a run of another machine; one that has not beaten lately, whose process number another may have by now; and
    one that has, and has no process here: there are containers of one name.
    """
    if not record:
        return False
    if record.get("host") != socket.gethostname() or not isinstance(record.get("pid"), int):
        return None
    beaten, is_here = time.time() - lock.stat().st_mtime < 2 * BEAT, True
    try:
        os.kill(record["pid"], 0)
    except ProcessLookupError:
        is_here = False
    except PermissionError:  # somebody else's
        pass
    return is_here if is_here == beaten else None


def _status(directory: RunDirectory, record: dict[str, Any], lives: bool) -> Status:
    state, told = _state(directory, record, lives)
    last = last_line(directory.metrics) or {}
    return Status(
        run_dir=directory.path,
        state=state,
        told=told,
        step=last.get("step", 0),
        total_steps=steps if isinstance(steps := directory.setting("training", "steps"), int) else None,
        metrics=last,
        validation=last_line(directory.metrics, "validation/loss") or {},
        curve=[(line["step"], line["loss"]) for line in spread_lines(directory.metrics, CURVE) if "loss" in line],
        checkpoint=_text(directory.checkpoints / "latest"),
        slurm_job=_text(directory.slurm / "started"),
        logged_ago=time.time() - directory.metrics.stat().st_mtime if last else None,
    )


def _state(directory: RunDirectory, record: dict[str, Any], lives: bool) -> tuple[State, str]:
    where = f"on {record.get('host')}, process {record.get('pid')}, since {record.get('started')}"
    if lives:
        return "running", where
    if directory.summary.is_file():
        return "finished", ""
    if (stopped := _json(directory.stopped)) is not None:
        return "stopped", f"{stopped.get('message', '')} (exit status {stopped.get('status')})"
    if record or directory.metrics.is_file():
        ran = f"it ran {where}, and" if record else "it"
        return "dead", f"{ran} ended without a word: see {directory.logs} and its job's log"
    return "not started", ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
