"""What the device does in a training step, by torch's profiler."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

GAP_US = 10.0
MOST = 20  # kernels of a comparison
Interval = tuple[float, float]  # begin and end, µs


def profiled(step: Callable[[], Any], steps: int = 3) -> dict[str, Any]:
    """Figures of one step, means over ``steps`` of them: those of `summary`, and ``by_kernel``: calls and ms by name.

    Without a GPU the operators that call no other stand for kernels.
    """
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
    events = profiler.events()
    assert events is not None
    return summary(events, steps)


def summary(events: Iterable[Any], steps: int) -> dict[str, Any]:
    """Per step.

    Args:
        events: as torch's profiler has them: ``name``, ``device_type``, ``time_range`` (``start``, ``end`` in µs).
    """
    listed = list(events)
    host = [event for event in listed if event.device_type == DeviceType.CPU]
    on_device = [
        event
        for event in listed
        if event.device_type != DeviceType.CPU and not getattr(event, "is_user_annotation", False)
    ]
    calls = Counter(event.name for event in host)
    kernels = on_device or [event for event in host if not event.cpu_children]
    waits = {name: count for name, count in calls.items() if "Synchronize" in name or name == "cudaMemcpy"}
    if on_device and "cudaDeviceSynchronize" in waits:  # the profiler's own, and the one after the last step
        waits["cudaDeviceSynchronize"] -= 2
    launches = sum(count for name, count in calls.items() if "LaunchKernel" in name)
    spans = [(event.time_range.start, event.time_range.end) for event in kernels]
    busy = merged(spans)
    gaps = [after[0] - before[1] for before, after in pairwise(busy)]
    large = [gap for gap in gaps if gap >= GAP_US]
    by_kernel: dict[str, list[float]] = {}
    for event in kernels:
        of_name = by_kernel.setdefault(event.name, [0.0, 0.0])
        of_name[0] += 1 / steps
        of_name[1] += (event.time_range.end - event.time_range.start) / 1e3 / steps
    return {
        "launches": round(launches / steps),
        "kernels": round(len(kernels) / steps),
        "synchronisations": round(sum(max(0, count) for count in waits.values()) / steps, 1),
        "waits": {name: round(count / steps, 1) for name, count in waits.items() if count > 0},
        "span_ms": round((busy[-1][1] - busy[0][0]) / 1e3 / steps, 3) if busy else 0.0,
        "busy_ms": round(sum(end - begin for begin, end in busy) / 1e3 / steps, 3),
        "gaps": round(len(large) / steps),
        "gaps_ms": round(sum(large) / 1e3 / steps, 3),
        "longest_gap_ms": round(max(gaps, default=0.0) / 1e3, 3),
        "by_kernel": by_kernel,
    }


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """When the device works: intervals in order, those that overlap or touch as one."""
    found: list[Interval] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def extra(plain: dict[str, list[float]], ours: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Kernels by how much more time ``ours`` spends in them, most first: calls of both, and ms more.

    Args:
        plain, ours: calls and ms by kernel.
    """
    rows: list[dict[str, Any]] = [
        {
            "kernel": name,
            "plain": plain.get(name, (0.0, 0.0))[0],
            "ours": ours.get(name, (0.0, 0.0))[0],
            "extra_ms": ours.get(name, (0.0, 0.0))[1] - plain.get(name, (0.0, 0.0))[1],
        }
        for name in plain | ours
    ]
    return sorted(rows, key=lambda row: -row["extra_ms"])[:MOST]
