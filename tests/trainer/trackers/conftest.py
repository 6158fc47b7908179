"""A run with every tracker, cut short and gone on with: one start of each for all tests that look at what it left."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.trackers.wandb_file import records
from tests.conftest import Pools
from tests.trainer.checkpoint.conftest import interrupted
from tests.trainer.conftest import read_metrics, write_recipe
from tests.trainer.trackers import runs
from tests.trainer.trackers.wandb_server import Server

STEPS, STOPPED, ALL_STEPS = 6, 4, 8
OPTIONS = [
    *("--lr_schedule.warmup_steps", "2", "--evaluation.every_steps", "3", "--logging.every_steps", "1"),
    *("--checkpoint.every_steps", "1", "--checkpoint.keep", "null", "--logging.peak_tflops", "1"),
    *("--presence.alignment", "true", "--presence.near_duplicates", "0.9"),
    *("--presence.schedule.switch_fraction", "null", "--presence.schedule.switch_step", "3"),
    *("--wandb.enabled", "true", "--wandb.mode", "offline", "--wandb.table_every", "2"),
    *("--tensorboard.enabled", "true", "--tensorboard.table_every", "3", "--tensorboard.sample_text", "false"),
    *("--trackio.enabled", "true", "--trackio.table_every", "4"),
]


@dataclass
class Tracked:
    """What a run has left."""

    run_dir: Path
    trackio_name: str
    first_start: Path  # a copy of what its first start left

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self.run_dir)

    @cached_property
    def wandb(self) -> list[Any]:
        """Every record of the only offline folder."""
        (file,) = self.run_dir.glob("wandb/offline-run-*/*.wandb")
        return list(records(file))

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """What wandb was given of every step; a histogram or table as a dictionary."""
        return [nested(record.history.item) for record in self.wandb if record.HasField("history")]

    @property
    def wandb_files(self) -> Path:
        (folder,) = self.run_dir.glob("wandb/offline-run-*/files")
        return folder


def nested(items: Any) -> dict[str, Any]:
    """Items of wandb's protocol by name, one level deep."""
    found: dict[str, Any] = {}
    for item in items:
        name, *inner = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if inner:
            found.setdefault(name, {})[inner[0]] = value
        else:
            found[name] = value
    return found


@pytest.fixture(scope="session")
def tracked(pools: Pools, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Six steps on two ranks; a crash after the fourth; requeued by Slurm and finished at the eighth."""
    folder = tmp_path_factory.mktemp("tracked")
    name = uuid.uuid4().hex  # trackio has one place for all runs
    recipe = write_recipe(folder / "tiny.yaml", corpus_file)
    options = [*OPTIONS, "--trackio.name", name, "--run_dir"]

    def train(run_dir: Path, steps: int, environment: dict[str, str]) -> None:
        done = [str(recipe), *options, str(run_dir), "--training.steps", str(steps)]
        assert pools.get(2).run(runs.train, environment, *done) == [None, None]

    train(folder / "first", STEPS, {})
    run_dir = interrupted(folder / "first", folder / "run", STOPPED)
    train(run_dir, ALL_STEPS, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
    return Tracked(run_dir, name, folder / "first")


def forget_wandb() -> None:
    """What wandb keeps in this process of another test's server and key."""
    import wandb

    wandb.teardown()
    wandb.sdk.wandb_setup._singleton = None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    yield server
    forget_wandb()
    server.close()
