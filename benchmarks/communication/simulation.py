"""Many small ranks on this machine, which exchange and weigh the samples of an optimizer step as a training does."""

import statistics
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from benchmarks.communication.model import ScaleSetting
from presence_ds.reweighting import MicroBatch, Reweighting, ReweightingConfig, ScheduleConfig

WARMUP = 5


def simulate(setting: ScaleSetting, node: int, rounds: int) -> dict[str, float]:
    """Median milliseconds that the slowest of the ranks takes.

    Args:
        setting: ``ranks`` processes are started, each with ``micro_batch_size`` samples.
        node: ranks that count as one machine in the hierarchical gather.
        rounds: repetitions of each.

    Returns:
        ``flat``, one all-gather of all ranks; ``hierarchical``, a gather in every node, an all-gather between the
        nodes' first ranks and a broadcast in every node; ``weigh``, what `Reweighting` does, its flat gather included.
    """
    context: Any = multiprocessing.get_context("fork")
    results: SimpleQueue[dict[str, float]] = context.SimpleQueue()
    with TemporaryDirectory() as folder:
        arguments = (setting, node, rounds, Path(folder, "store"), results)
        multiprocessing.start_processes(_rank, arguments, nprocs=setting.ranks, start_method="fork")
    return results.get()


def weigh_alone(samples: int, rounds: int) -> float:
    """Median milliseconds in which one rank turns the gathered scores of so many samples into weights."""
    return simulate(ScaleSetting(0, ranks=1, stage=0, micro_batch_size=samples), 1, rounds)["weigh"]


def _rank(rank: int, setting: ScaleSetting, node: int, rounds: int, store: Path, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=setting.ranks)
    generator = torch.Generator().manual_seed(rank)
    batch = MicroBatch(
        losses=torch.rand(setting.micro_batch_size, generator=generator),
        targets=torch.ones(setting.micro_batch_size, dtype=torch.int64),
        sources=torch.zeros(setting.micro_batch_size, dtype=torch.int64),
        scores=torch.rand(setting.micro_batch_size, generator=generator),
    )
    rows = batch.rows()
    hierarchy = _Hierarchy(rank, setting.ranks, node)
    assert torch.equal(hierarchy.gather(rows), _flat(rows))  # else the comparison is none
    config = ReweightingConfig(preset="paper", schedule=ScheduleConfig(kind="constant"))
    reweighting = Reweighting(config, running=False, group=dist.group.WORLD)
    steps = iter(range(1, rounds + WARMUP + 1))

    def weigh() -> None:
        reweighting.collect(batch)
        reweighting.finish(next(steps))

    found = {
        "flat": _median(lambda: _flat(rows), rounds),
        "hierarchical": _median(lambda: hierarchy.gather(rows), rounds),
        "weigh": _median(weigh, rounds),
    }
    if rank == 0:
        results.put(found)
    dist.destroy_process_group()


def _flat(rows: Tensor) -> Tensor:
    every = rows.new_empty(dist.get_world_size() * len(rows), rows.shape[1])
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(every, rows)
    return every


class _Hierarchy:
    """Ranks in nodes of ``node``, the last of which may be smaller."""

    def __init__(self, rank: int, ranks: int, node: int) -> None:
        self._firsts = list(range(0, ranks, node))
        nodes = [list(range(first, min(first + node, ranks))) for first in self._firsts]
        groups = [dist.new_group(members) for members in nodes]
        self._between = dist.new_group(self._firsts)
        self._own = rank // node
        self._sizes = [len(members) for members in nodes]
        self._group, self._first = groups[self._own], self._firsts[self._own]
        self._leads = rank == self._first

    def gather(self, rows: Tensor) -> Tensor:
        """The ``rows`` of all ranks in their order, on every rank."""
        every = rows.new_empty(sum(self._sizes) * len(rows), rows.shape[1])
        of_nodes = list(every.split([size * len(rows) for size in self._sizes]))
        own = of_nodes[self._own]
        dist.gather(rows, list(own.chunk(self._sizes[self._own])) if self._leads else None, self._first, self._group)
        if self._leads and len(self._sizes) > 1:
            largest = max(self._sizes) * len(rows)
            padded = [rows.new_empty(largest, rows.shape[1]) for _ in of_nodes]
            padded[self._own][: len(own)] = own
            dist.all_gather(padded, padded[self._own].clone(), group=self._between)
            for part, found in zip(of_nodes, padded, strict=True):
                part.copy_(found[: len(part)])
        dist.broadcast(every, self._first, group=self._group)
        return every


def _median(call: Callable[[], Any], rounds: int) -> float:
    """Milliseconds, of the slowest rank in each round."""
    seconds = []
    for _ in range(WARMUP + rounds):
        dist.barrier()
        start = time.perf_counter()
        call()
        taken = torch.tensor(time.perf_counter() - start)
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        seconds.append(taken.item())
    return 1000 * statistics.median(seconds[WARMUP:])
