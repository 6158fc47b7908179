"""Short whole runs in a pool of ranks, made when first asked for and shared."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Pools
from tests.trainer.checkpoint import runs
from tests.trainer.conftest import ROOT, write_recipe

STEPS = 6
OPTIONS = [
    *("--training.steps", str(STEPS), "--lr_schedule.warmup_steps", "2", "--evaluation.every_steps", "3"),
    *("--logging.every_steps", "1", "--checkpoint.every_steps", "1", "--checkpoint.keep", "null"),
]
Train = Callable[..., "str | None"]


@pytest.fixture(scope="session")
def train(pools: Pools, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train in ``run_dir`` on that many ranks at that ZeRO stage; the error that ended it on every rank, if any."""
    recipe = write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", corpus_file)

    def train(run_dir: Path, *options: str, ranks: int = 2, stage: int = 2) -> str | None:
        zero = ["--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json")]
        errors = pools.get(ranks).run(runs.train, str(recipe), *OPTIONS, *zero, *options, "--run_dir", str(run_dir))
        assert len(set(errors)) == 1
        return errors[0]

    return train


@pytest.fixture(scope="session")
def whole(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run directory of an undisturbed run with a checkpoint of every step; not to be changed."""
    made: dict[tuple[int, int], Path] = {}

    def whole(ranks: int = 2, stage: int = 2) -> Path:
        if (ranks, stage) not in made:
            run_dir = tmp_path_factory.mktemp("whole") / "run"
            assert train(run_dir, ranks=ranks, stage=stage) is None
            made[ranks, stage] = run_dir
        return made[ranks, stage]

    return whole


def interrupted(whole: Path, copy: Path, step: int, *, keep: int = 0) -> Path:
    """A copy of a whole run as a crash during step ``step + 1`` would have left it, but for what it wrote since.

    Args:
        keep: checkpoints before the newest one that stay; 0 for all.
    """
    shutil.copytree(whole, copy)
    (copy / "summary.json").unlink()
    folders = sorted((copy / "checkpoints").glob("step_*"))
    for folder in [*folders[step:], *(folders[: step - keep - 1] if keep else [])]:
        shutil.rmtree(folder)
    return copy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder]).returncode != 0:
        pytest.skip("mounting a file system needs the right to do so")
    yield folder  # lazily, as the pool's ranks have the corpus mapped
    subprocess.run(["umount", "--lazy", folder], check=True)


def steps(run_dir: Path) -> list[int]:
    return [int(folder.name.removeprefix("step_")) for folder in sorted((run_dir / "checkpoints").glob("step_*"))]
