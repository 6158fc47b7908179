"""The run directory: everything a run leaves.

RUN_DIR/
  recipe.yaml       the recipe as resolved, overrides included; `presence train RUN_DIR/recipe.yaml` repeats it
  hub_commits.json  with streamed datasets of the hub: the commits that the run reads
  deepspeed.json    what DeepSpeed was given
  corpus/           tokenizer, packed tokens, report; with data.prepared, tokenizer/ instead
  metrics.jsonl     one JSON object per logged step
  scores/           loss, self-influence, alignment and weight of every sample (parquet)
  checkpoints/      step_*/ and the pointer `latest` (`presence_ds.trainer.checkpoint`)
  logs/             what ranks other than 0 print, and tracebacks (`presence_ds.trainer.ranks.rank_log`)
  slurm/            what its jobs know of each other (`slurm/` of the repository)
  lock              held by the run in progress (`lock`)
  tracked.jsonl     with a tracker enabled: histograms and tables of samples, a line for each of metrics.jsonl
  wandb_run_id      with wandb enabled; and wandb/ (`presence_ds.trainer.trackers.wandb_run`)
  tensorboard/      with tensorboard enabled
  profile/          with the profiler enabled: traces and tables of operators (`presence_ds.trainer.callbacks.profiler`)
  stopped.json      written when it has ended early: why, and after which step
  stacks/           of all ranks of a run in which nothing moved any more (`hang_watch`)
  summary.json      written when the run has finished
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from presence_ds.errors import ConfigError
from presence_ds.trainer.ranks.rank_log import print_warning


class RunDirectory:
    """Paths of one run, and the few operations on the directory as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.recipe = self.path / "recipe.yaml"
        self.hub_commits = self.path / "hub_commits.json"
        self.deepspeed = self.path / "deepspeed.json"
        self.corpus = self.path / "corpus"
        self.tokenizer = self.path / "tokenizer"
        self.metrics = self.path / "metrics.jsonl"
        self.scores = self.path / "scores"
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.slurm = self.path / "slurm"
        self.lock = self.path / "lock"
        self.tracked = self.path / "tracked.jsonl"
        self.wandb_run_id = self.path / "wandb_run_id"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.stopped = self.path / "stopped.json"
        self.stacks = self.path / "stacks"
        self.summary = self.path / "summary.json"

    def log(self, rank: int) -> Path:
        """What ``rank`` prints."""
        return self.logs / f"rank_{rank:05d}.log"

    def claim(self, *, training_steps: int, may_resume: bool) -> None:
        """Create the directory, or make sure that a run may go on in it. On rank 0 only.

        Args:
            may_resume: Whether a run found in the directory may be continued.

        Raises:
            ConfigError: not writable, holds other files, or holds a run that may not be continued.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = set(os.listdir(self.path)) - {self.lock.name, self.slurm.name, _temporary(self.recipe).name}
        except OSError as error:
            raise ConfigError(f"run_dir is {self.path}: it cannot be made ({error.strerror})") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError(f"run_dir is {self.path}: it is not writable")
        if content and not self.recipe.is_file():
            raise ConfigError(f"run_dir is {self.path}: it holds other files and no run; name a new directory")
        if content and not may_resume:
            raise ConfigError(
                f"run_dir is {self.path}: it holds a run already and checkpoint.resume is never; name a new directory"
            )
        if self.summary.is_file():
            finished = json.loads(self.summary.read_text(encoding="utf-8"))["steps"]
            if finished >= training_steps:
                raise ConfigError(
                    f"run_dir is {self.path}: it holds a run that has finished its {finished} steps; name a new "
                    f"directory, or raise training.steps to go on"
                )

    def begin(self, resolved: dict[str, Any]) -> None:
        """Make the folders of a run. On rank 0 only, when the directory is claimed.

        Args:
            resolved: as for `write_recipe`.
        """
        if not self.recipe.is_file():  # first of all: a directory without it is taken for someone else's
            self.write_recipe(resolved)
        for folder in (self.checkpoints, self.logs):
            folder.mkdir(exist_ok=True)

    def write_recipe(self, resolved: dict[str, Any]) -> None:
        """Write the recipe as ``resolved``, which names this directory from then on."""
        write_atomically(self.recipe, yaml.safe_dump({**resolved, "run_dir": str(self.path)}, sort_keys=False))

    def setting(self, section: str, field: str) -> Any:
        """What the run's recipe says; None where it cannot be read, as one of an older version, or edited since."""
        try:
            return yaml.safe_load(self.recipe.read_text(encoding="utf-8"))[section][field]
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
            return None

    def keep_tokenizer(self, folder: Path) -> None:
        """Copy the tokenizer of a shared corpus, so that the run can be exported without that. On rank 0 only."""
        if not self.tokenizer.is_dir():
            copy = _temporary(self.tokenizer)
            shutil.rmtree(copy, ignore_errors=True)
            try:
                shutil.copytree(folder, copy)
            except shutil.Error as error:  # an OSError of a list: file, copy and reason of each
                shutil.rmtree(copy, ignore_errors=True)
                raise ConfigError(
                    f"run_dir is {self.path}: the tokenizer cannot be copied ({error.args[0][0][2]})"
                ) from None
            os.replace(copy, self.tokenizer)

    def discard_after(self, step: int, damaged: Sequence[Path] = ()) -> None:
        """Drop what was written after optimizer step ``step``, so that a resumed run writes it once. Rank 0 only.

        Args:
            damaged: checkpoints after ``step`` that were passed over, oldest last. They and what belongs to them are
                kept under another name, beside the checkpoints.
        """
        aside = None
        for checkpoint in damaged:
            kept = _unused(checkpoint.with_name(DAMAGED + checkpoint.name))
            os.replace(checkpoint, kept)
            aside = aside or kept
        for lines in (self.metrics, self.tracked):
            if lines.is_file():
                _cut_lines(lines, step, aside)
        for file in self.scores.glob("*.parquet*"):
            if score_file_steps(file)[0] > step or file.suffix != ".parquet":
                if aside is None:
                    file.unlink()
                else:
                    (aside / "scores").mkdir(exist_ok=True)
                    os.replace(file, aside / "scores" / file.name)
        for folder in self.checkpoints.glob(UNFINISHED + "*"):
            shutil.rmtree(folder)
        for folder in self.checkpoints.glob("step_*"):
            if int(folder.name.removeprefix("step_")) > step:
                shutil.rmtree(folder)
        self.summary.unlink(missing_ok=True)


def run_directory_path(stated: str | None, recipe_file: Path | None) -> Path:
    """The absolute path of the directory that a recipe states; without one ``runs/NAME-DATE-TIME`` where we are."""
    name = "run" if recipe_file is None else recipe_file.stem
    return Path(stated or f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}").expanduser().absolute()


def score_file_name(ranks: tuple[int, int], first_step: int, last_step: int | None = None) -> str:
    """Name of the records of the first to the last of ``ranks`` for the optimizer steps, all included.

    ``last_step`` is None for a file that is still being written.
    """
    steps = f"{first_step:08d}" if last_step is None else f"{first_step:08d}-{last_step:08d}"
    return f"ranks_{ranks[0]:05d}-{ranks[1]:05d}-steps_{steps}.parquet"


def score_file_steps(file: Path) -> tuple[int, int]:
    """First and last optimizer step of a file of score records; a file still being written has no last one (-1)."""
    numbers = file.name.split(".")[0].split("steps_")[1].split("-")
    return int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else -1


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; a reader, or a crash, finds the old content or the new, never a part."""
    temporary = _temporary(path)
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a write that fails does not name its file


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` by ``content`` as indented JSON."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def write_stopped(directory: RunDirectory, why: str, message: str, status: int, step: int) -> None:
    """Write stopped.json, by which a script tells whether and how to go on; on one rank. A full disk is only said.

    Args:
        why: signal, stop_file, wall_clock, anomaly, hang or health.
        step: last optimizer step that was finished.
    """
    content = {"reason": why, "message": message, "status": status, "step": step, "unix_time": round(time.time(), 1)}
    try:
        write_json(directory.stopped, content)
    except OSError as error:
        print_warning(f"{directory.stopped} cannot be written ({error.strerror})")


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _cut_lines(path: Path, step: int, aside: Path | None) -> None:
    """Drop the lines after ``step``, in place: a callback may have the file open already, and it may be large."""
    with open(path, "r+b") as file:
        end = 0
        for line in file:
            if not line.endswith(b"\n") or _step_of(line) > step:
                break
            end += len(line)
        file.seek(end)
        rest = [(line, _step_of(line)) for line in file]
        if aside is not None:
            (aside / path.name).write_bytes(b"".join(line for line, at in rest if step < at < float("inf")))
        file.seek(end)
        file.writelines(line for line, at in rest if line.endswith(b"\n") and at <= step)
        file.truncate()
        os.fsync(file.fileno())


def _step_of(line: bytes) -> float:
    """The step of a line of metrics.jsonl; infinity for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _unused(path: Path) -> Path:
    """``path``, or the first of ``path.1``, ``path.2``, ... that does not exist."""
    candidates = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 1000))]
    return next(candidate for candidate in candidates if not candidate.exists())


UNFINISHED = "unfinished_"
DAMAGED = "damaged_"
