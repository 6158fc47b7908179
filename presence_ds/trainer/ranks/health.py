"""Sick devices and links, found and named before the first step.

An all-reduce that is slow or hangs does so on every rank alike and names nobody. So each node first exchanges data with
one neighbour at a time, in two rounds or three: one that is slow or silent in all of them is sick, its partners being
so in one. What was found travels over the ranks' control group, which is gloo and may work where the accelerators' own
network does not. Whatever may never end is done in threads, which can be left behind.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator

from presence_ds.errors import HealthError
from presence_ds.launch.environment import local_size
from presence_ds.trainer.ranks.health_config import HealthConfig
from presence_ds.trainer.ranks.health_report import NEVER, Report, judge, message
from presence_ds.trainer.ranks.process_group import Ranks

REPEATS = 3  # of which the fastest counts: a busy moment is no sickness


def check_health(ranks: Ranks, config: HealthConfig, warn: Callable[[str], None]) -> str:
    """Check on every rank; what was measured, in one line. ``warn`` takes the one line about slow nodes.

    Raises:
        HealthError: on every rank alike, what is sick.
    """
    local_rank, size = int(os.environ.get("LOCAL_RANK", "0")), local_size()
    distance = size if ranks.world_size > size else 1  # in ranks, between a unit and the next
    unit, units = ranks.rank // distance, ranks.world_size // distance
    report = Report(ranks.rank, unit, socket.gethostname(), get_accelerator().device_name(local_rank))

    def in_time(work: Callable[[Report], None], passed: Callable[[], bool]) -> bool:
        """Whether a part of the check has passed on every rank, after which the next one may begin."""
        thread = threading.Thread(target=_run, args=(work, report, local_rank), name="health check", daemon=True)
        thread.start()
        thread.join(config.seconds)
        return ranks.all(passed())

    if in_time(multiply, lambda: report.product < NEVER):
        group = dist.new_group()
        healthy = True
        for number, other in enumerate(partners(unit, units)):
            if other is None:
                healthy &= ranks.all(True)
                continue
            report.exchanges[number] = NEVER
            part = partial(exchange, number=number, peer=ranks.rank + (other - unit) * distance, group=group)
            healthy &= in_time(part, lambda number=number: report.exchanges[number] < NEVER)  # type: ignore[misc]
        if healthy and in_time(partial(add_up, group=group), lambda: report.reduction < NEVER):
            dist.destroy_process_group(group)
    findings = judge(ranks.gather(report), config.slow_factor)
    if findings.failures or (findings.slow and config.on_slow == "stop"):
        raise HealthError(message(findings.failures or findings.slow))
    if findings.slow:
        warn(message(findings.slow))
    return findings.summary


def multiply(report: Report) -> None:
    """Multiply matrices of small integers, which every device does exactly, and compare the sums of the rows."""
    small = _is_cpu()
    size, products = (256, 1) if small else (2048, 64)
    numbers = torch.arange(size * size, dtype=torch.int64)
    left, right = ((numbers * factor % 9 - 4).reshape(size, size).float() for factor in (5, 7))
    device = get_accelerator().current_device_name()
    on_device = left.to(device), right.to(device)

    def work() -> torch.Tensor:
        for _ in range(products):
            product = on_device[0] @ on_device[1]
        return product

    seconds = _fastest(work)
    if not torch.equal(work().cpu().double().sum(1), left.double() @ right.double().sum(1)):
        report.error = "multiplies matrices wrongly"
    else:
        report.product = seconds


def exchange(report: Report, *, number: int, peer: int, group: dist.ProcessGroup) -> None:
    """Send data to another rank and get it back, or the other way round; the same must come back."""
    data = torch.arange(buffer_elements(), device=get_accelerator().current_device_name(), dtype=torch.float32)
    received = torch.empty_like(data)

    def work() -> None:
        if dist.get_rank() < peer:
            dist.send(data, peer, group=group)
            dist.recv(received, peer, group=group)
        else:
            dist.recv(received, peer, group=group)
            dist.send(received, peer, group=group)

    seconds = _fastest(work)
    if not torch.equal(received, data):
        report.error = f"got other data from rank {peer} than were sent"
    else:
        report.exchanges[number] = seconds


def add_up(report: Report, *, group: dist.ProcessGroup) -> None:
    """All-reduce ones over all ranks."""
    data = torch.ones(buffer_elements(), device=get_accelerator().current_device_name())
    seconds = _fastest(lambda: dist.all_reduce(data.fill_(1.0), group=group))
    if not bool((data == dist.get_world_size()).all()):
        report.error = "got a wrong sum from an all-reduce"
    else:
        report.reduction = seconds


def partners(unit: int, units: int) -> list[int | None]:
    """With whom ``unit`` of ``units`` exchanges data, round by round: with both neighbours in a ring; None: a pause."""
    if units == 1:
        return []
    pairs = [(first, (first + 1) % units) for first in range(units)]  # the last one closes the ring
    rounds = [pairs[0::2], pairs[1::2]] if units % 2 == 0 else [pairs[0:-1:2], pairs[1::2], pairs[-1:]]
    if units == 2:
        rounds = rounds[:1]
    return [next((sum(pair) - unit for pair in of_round if unit in pair), None) for of_round in rounds]


def buffer_elements() -> int:
    """Float32 numbers that are sent: 1 MiB, or 256 MiB between accelerators."""
    return 2**18 if _is_cpu() else 2**26


def _is_cpu() -> bool:
    return bool(get_accelerator().device_name() == "cpu")


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of `REPEATS` runs of ``work``, after one that makes connections."""
    work()
    taken = []
    for _ in range(REPEATS):
        get_accelerator().synchronize()
        began = time.perf_counter()
        work()
        get_accelerator().synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _run(work: Callable[[Report], None], report: Report, local_rank: int) -> None:
    """A part of the check in its thread, where no device is chosen yet."""
    try:
        if not _is_cpu():
            get_accelerator().set_device(local_rank)
        work(report)
    except Exception as error:
        report.error = f"failed: {' '.join(str(error).split())[:200]}"
