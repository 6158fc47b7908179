import os
from collections.abc import Iterator

import pytest
import torch.distributed as dist
from hypothesis import settings

from tests.ranks import Ranks

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("presence", deadline=None)  # a busy machine is not a failure
settings.load_profile("presence")


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
    """A process group of this process alone."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()
