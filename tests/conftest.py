import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings

from tests.ranks import Ranks

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "TRACKIO_DIR" not in os.environ:  # or it would write to that of whoever runs the tests
    os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")
    atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)
settings.register_profile("few", deadline=None, max_examples=20)  # a busy machine is not a failure
settings.register_profile("many", deadline=None, max_examples=100, derandomize=False)  # others in every run
settings.load_profile("many" if os.environ.get("CI") else "few")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # a core for each worker


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """--durations are those of all runs of pytest that share the file TEST_DURATIONS, where CI tests in parts."""
    path = os.environ.get("TEST_DURATIONS")
    if path is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    reports = [one for group in terminalreporter.stats.values() for one in group if hasattr(one, "duration")]
    with open(path, "a+") as file:
        file.seek(0)
        earlier = [SimpleNamespace(**json.loads(line)) for line in file]
        for one in reports:
            file.write(json.dumps({"duration": one.duration, "when": one.when, "nodeid": one.nodeid}) + "\n")
    terminalreporter.stats.setdefault("", []).extend(earlier)  # where set-ups are, which the closing line leaves out


class Pools:
    """Pools of ranks by size, started when they are first asked for."""

    def __init__(self) -> None:
        self._pools: dict[int, Ranks] = {}

    def get(self, size: int) -> Ranks:
        pool = self._pools.get(size)
        if pool is None or not pool.alive:
            pool = self._pools[size] = Ranks(size)
        return pool

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(scope="session")
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture
def two_ranks(pools: Pools) -> Ranks:
    return pools.get(2)


@pytest.fixture
def one_rank(pools: Pools) -> Ranks:
    return pools.get(1)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone, unless there is one (tests/gpu)."""
    if dist.is_initialized():
        yield
        return
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()
