"""The health check: on real ranks of which one is made sick, and whom it names among many."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from presence_ds.errors import ConfigError, HealthError
from presence_ds.sections import check_ranges
from presence_ds.trainer.ranks import health
from presence_ds.trainer.ranks.health import check_health, partners
from presence_ds.trainer.ranks.health_config import HealthConfig
from presence_ds.trainer.ranks.health_report import NEVER, Report, judge
from presence_ds.trainer.ranks.process_group import Ranks as TrainerRanks
from tests.ranks import Ranks
from tests.trainer import pool_runs

HERE = socket.gethostname()


class Sick:
    """The `part` of rank 1's check, ``slow`` or ``silent``; nothing is sick without a ``how``."""

    def __init__(self, part: str, how: str | None) -> None:
        self.name, self.part, self.how = part, getattr(health, part), how

    def __call__(self, report: Report, **arguments: Any) -> None:
        if report.rank != 1 or self.how is None:
            self.part(report, **arguments)
        elif self.how == "slow":
            time.sleep(0.3)
            self.part(report, **arguments)
            report.product += 0.3

    def __enter__(self) -> None:
        setattr(health, self.name, self)

    def __exit__(self, *_: object) -> None:
        setattr(health, self.name, self.part)


def measured(part: str, how: str | None, on_slow: Any = "warn") -> tuple[str, list[str]]:
    """What the check says on this rank, and its warnings."""
    warnings: list[str] = []
    try:
        with Sick(part, how):
            return check_health(
                TrainerRanks(), HealthConfig(seconds=3.0, slow_factor=4.0, on_slow=on_slow), warnings.append
            ), warnings
    except HealthError as error:
        return str(error), warnings


def trained(arguments: list[str]) -> tuple[int, str]:
    """The status of a run of which rank 1 is silent, and what it says."""
    with Sick("multiply", "silent"):
        ended = pool_runs.train(arguments)
    return ended["status"], ended["message"]


def wrong() -> tuple[str, list[str]]:
    """Rank 1's device multiplies float32 matrices with an error in one element."""
    right = torch.Tensor.__matmul__
    rank = torch.distributed.get_rank()

    def multiply(left: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        product = right(left, other)
        if rank == 1 and product.dtype == torch.float32:
            product[3, 5] += 1.0
        return product

    torch.Tensor.__matmul__ = multiply  # type: ignore[method-assign, assignment]
    try:
        return measured("multiply", None)
    finally:
        torch.Tensor.__matmul__ = right  # type: ignore[method-assign]


def test_healthy_ranks(two_ranks: Ranks) -> None:
    for said, warnings in two_ranks.run(measured, "multiply", None):
        assert said.startswith("health: 2 devices on 1 machines; medians: product ")
        assert " exchange " in said
        assert " all-reduce " in said
        assert warnings == []


def test_a_slow_device_is_named_or_ends_the_run(two_ranks: Ranks) -> None:
    for said, warnings in two_ranks.run(measured, "multiply", "slow"):
        assert said.startswith("health: ")
        assert [line.split(" in ")[0] for line in warnings] == [
            f"health check: {HERE}, rank 1 (cpu) multiplies matrices"
        ]
    for said, warnings in two_ranks.run(measured, "multiply", "slow", "stop"):
        assert said.startswith(f"health check: {HERE}, rank 1 (cpu) multiplies matrices in 3")
        assert warnings == []


def test_a_device_that_is_silent_or_wrong_is_named(two_ranks: Ranks) -> None:
    for said, _ in two_ranks.run(measured, "multiply", "silent"):
        assert said.startswith(f"health check: {HERE}, rank 1 (cpu) did not multiply matrices in time. Leave the node")
    for said, _ in two_ranks.run(wrong):
        assert said.startswith(f"health check: {HERE}, rank 1 (cpu) multiplies matrices wrongly. Leave the node out")


def test_a_run_on_a_sick_device_ends_before_it_begins(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = [str(tiny_recipe), "--run_dir", str(run_dir), "--health.seconds", "2"]
    for status, said in two_ranks.run(trained, arguments):
        assert status == 78
        assert said.startswith(f"health check: {HERE}, rank 1 (cpu) did not multiply matrices in time")
    stopped = json.loads((run_dir / "stopped.json").read_text())
    assert [stopped[name] for name in ("reason", "status", "step")] == ["health", 78, 0]
    assert not (run_dir / "corpus").exists()


def test_a_link_that_is_silent_is_named_by_its_ends(two_ranks: Ranks) -> None:
    for said, _ in two_ranks.run(measured, "exchange", "silent"):
        for rank in (0, 1):
            assert f"{HERE}, rank {rank} (cpu) did not exchange data with any other in time" in said
    for said, _ in two_ranks.run(measured, "add_up", "silent"):
        assert f"{HERE}, rank 1 (cpu) did not come out of an all-reduce in time" in said


@pytest.mark.parametrize("units", range(1, 8))
def test_everyone_has_both_neighbours_in_turn(units: int) -> None:
    rounds = [partners(unit, units) for unit in range(units)]
    for unit, others in enumerate(rounds):
        assert {other for other in others if other is not None} == {(unit + 1) % units, (unit - 1) % units} - {unit}
        for number, other in enumerate(others):
            assert other is None or rounds[other][number] == unit


def cluster(units: int, sick: dict[tuple[int, int], float]) -> list[Report]:
    """Reports of two ranks on each of ``units`` nodes; ``sick`` has the seconds of the links that are not well."""
    reports = []
    for unit in range(units):
        others = enumerate(partners(unit, units))
        seconds = {
            number: sick.get((min(unit, other), max(unit, other)), 0.03)
            for number, other in others
            if other is not None
        }
        reduction = NEVER if sick and max(sick.values()) == NEVER else 0.05
        ranks = (2 * unit, 2 * unit + 1)
        reports += [Report(rank, unit, f"n{unit}", "cuda:0", "", 0.02, dict(seconds), reduction) for rank in ranks]
    return reports


@pytest.mark.parametrize("units", [3, 4, 5, 8])
def test_the_node_whose_links_are_all_slow_or_silent_is_named(units: int) -> None:
    last, before = units - 1, units - 2
    slow = judge(cluster(units, {(before, last): 0.3, (0, last): 0.4}), 3.0)
    assert slow.slow == [f"n{last} exchanges data in 300 ms, the median is 30 ms"]
    assert slow.failures == []
    silent = judge(cluster(units, {(before, last): NEVER, (0, last): NEVER}), 3.0)
    assert silent.failures == [f"n{last} did not exchange data with any other in time"]
    one_link = judge(cluster(units, {(0, 1): NEVER}), 3.0)
    assert one_link.failures == [f"n{n} did not exchange data with one of its neighbours in time" for n in (0, 1)]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (HealthConfig(seconds=0.5), "health.seconds is 0.5: it must be at least 1"),
        (HealthConfig(slow_factor=1.0), "health.slow_factor is 1.0: it must be above 1"),
    ],
)
def test_values_that_cannot_be_used(config: HealthConfig, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_ranges(config, "health")
