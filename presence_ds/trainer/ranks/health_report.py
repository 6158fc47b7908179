"""What the health checks of all ranks come to: which device or node is sick, in words."""

from dataclasses import dataclass, field
from statistics import median_low

NEVER = float("inf")  # seconds of what did not end in time
NOTICEABLE = 0.02  # seconds: what takes no longer than that is not slow, whatever the others take
SHOWN = 4
BROKEN = "did not exchange data with one of its neighbours in time"


@dataclass
class Report:
    """What one rank has found.

    Attributes:
        unit: what exchanged data as a whole: the node, on a single machine the rank.
        error: what went wrong, if anything.
        product: seconds for products of matrices on the device.
        exchanges: seconds to send data to a neighbour and get it back, by round.
        reduction: seconds for one all-reduce over all ranks.
    """

    rank: int
    unit: int
    host: str
    device: str
    error: str = ""
    product: float = NEVER
    exchanges: dict[int, float] = field(default_factory=dict)
    reduction: float = NEVER

    def __str__(self) -> str:
        return f"{self.host}, rank {self.rank} ({self.device})"


@dataclass(frozen=True)
class Findings:
    """What no run can go on with, what it could with patience (one phrase each), and the medians in one line."""

    failures: list[str]
    slow: list[str]
    summary: str


def judge(reports: list[Report], slow_factor: float) -> Findings:
    """Name what is sick. A part of the check is judged where every rank has come through the parts before.

    Args:
        reports: of every rank.
        slow_factor: what takes so many times as long as the median is slow.
    """
    failures = [f"{report} {report.error}" for report in reports if report.error]
    if failures:
        return Findings(failures, [], "")
    units: dict[int, list[Report]] = {}
    for report in reports:
        units.setdefault(report.unit, []).append(report)
    products = {str(report): report.product for report in reports}
    exchanges = {_name(members): _exchange(members) for members in units.values() if members[0].exchanges}
    reductions = {str(report): report.reduction for report in reports}
    parts = [
        ("did not multiply matrices", "multiplies matrices", products),
        ("did not exchange data with any other", "exchanges data", exchanges),
        ("did not come out of an all-reduce", "adds up", reductions),
    ]
    slow: list[str] = []
    for silent, verb, seconds in parts:
        failures = [f"{name} {silent} in time" for name, value in seconds.items() if value == NEVER]
        if seconds is exchanges and not failures:
            failures = [f"{_name(members)} {BROKEN}" for members in units.values() if _has_broken_link(members)]
        if failures:
            break
        slow += _slow(verb, seconds, slow_factor)
    names = {"product": products, "exchange": exchanges, "all-reduce": reductions}
    medians = [f"{name} {median_low(seconds.values()) * 1e3:.1f} ms" for name, seconds in names.items() if seconds]
    hosts = len({report.host for report in reports})
    summary = f"health: {len(reports)} devices on {hosts} machines; medians: {', '.join(medians)}"
    return Findings(failures, slow, summary)


def message(phrases: list[str]) -> str:
    """The phrases in one line that says what to do."""
    more = f" and {len(phrases) - SHOWN} more" if len(phrases) > SHOWN else ""
    return (
        f"health check: {'; '.join(phrases[:SHOWN])}{more}. Leave the node out (sbatch --exclude=NODE) and report it, "
        "or switch the check off with health.enabled=false"
    )


def _slow(verb: str, seconds: dict[str, float], factor: float) -> list[str]:
    usual = median_low(seconds.values()) if seconds else NEVER
    return [
        f"{name} {verb} in {value * 1e3:.0f} ms, the median is {usual * 1e3:.0f} ms"
        for name, value in seconds.items()
        if value > factor * usual and value > NOTICEABLE
    ]


def _exchange(members: list[Report]) -> float:
    """Seconds of a unit: of its best round, in which its slowest rank counts."""
    rounds = members[0].exchanges
    return min(max(member.exchanges[number] for member in members) for number in rounds)


def _has_broken_link(members: list[Report]) -> bool:
    return any(seconds == NEVER for member in members for seconds in member.exchanges.values())


def _name(members: list[Report]) -> str:
    return str(members[0]) if len(members) == 1 else members[0].host
