"""What PRESENCE sends between ranks, and what becomes of it on thousands of them.

    python -m benchmarks.scale [--document docs/scale.md]

Two tables: bytes counted in real steps beside those of the model (`benchmarks/communication/model.py`), and what the
model says of 8 to 4,096 GPUs.
"""

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from benchmarks.communication.model import ScaleSetting, exchange_bytes, step_traffic
from benchmarks.communication.traffic import Kind, latency_steps, sent_bytes
from benchmarks.document import table, write_section
from benchmarks.ranks import run_module
from benchmarks.setting import Setting

STAGES: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
COUNTED: dict[str, Literal["one_pass", "two_pass"] | None] = {
    "plain": None,
    "one_pass_projected": "one_pass",
    "two_pass_projected": "two_pass",
}
MODEL = Setting(hidden_size=512, layers=2, vocabulary=1024, sequence_length=64, batch_size=2, threads=1)


@dataclass(frozen=True)
class Machine:
    """A cluster and what is trained on it.

    Args:
        parameters: Of the model.
        tokens: Of a micro-batch of one GPU.
        micro_batch_size: Samples of it.
        flops: Of a GPU, as used: peak times utilisation.
        bandwidth: Bytes per second that a GPU sends to another machine.
        message: Seconds from a GPU to one of another machine, for a small message.
        local_message: The same inside a machine.
        node: GPUs of a machine.
    """

    parameters: int = 7_000_000_000
    tokens: int = 16_384
    micro_batch_size: int = 8
    flops: float = 0.4 * 989e12
    bandwidth: float = 50e9
    message: float = 5e-6
    local_message: float = 2e-6
    node: int = 8


def scale(machine: Machine = Machine(), document: Path | None = None) -> None:
    """Make the two tables.

    Args:
        machine: What the second one is for.
        document: Markdown file to put them into. null: print them.
    """
    write_section(document, "counted", report_counts([2, 4]))
    write_section(document, "predicted", report_predictions(machine))


def report_counts(ranks: list[int], stages: tuple[Literal[1, 2, 3], ...] = STAGES) -> str:
    """Counted and predicted bytes of real steps on this machine, as a table in markdown."""
    lines = []
    for stage in stages:
        for count in ranks:
            setting = replace(MODEL, stage=stage, ranks=count)
            options = {"setting": setting.as_dict(), "variants": list(COUNTED)}
            ran = run_module("benchmarks.communication.worker", options, count, setting.environment())
            for variant, strategy in COUNTED.items():
                expected = step_traffic(
                    ScaleSetting(
                        parameters=ran["parameters"],
                        ranks=count,
                        stage=stage,
                        strategy=strategy,
                        micro_batch_size=setting.batch_size,
                        bytes_per_number=4,
                        keeps_gathered=True,
                    )
                )
                lines.append(_counted_line(stage, count, variant, ran["traffic"][variant], expected))
    return table(["ZeRO", "ranks", "step", *_KINDS, "calls"], lines)


_KINDS: tuple[Kind, ...] = ("all-reduce", "all-gather", "reduce-scatter")


def _counted_line(stage: int, ranks: int, variant: str, counted: dict[str, Any], expected: dict[Any, Any]) -> list[str]:
    cells = []
    for kind in _KINDS:
        found = counted.get(kind, (0, 0))[1]
        model = expected[kind].payload if kind in expected else 0
        cells.append(f"{found:,} / {model:,}" if found or model else "–")
    calls = sum(number for number, _ in counted.values())
    return [str(stage), str(ranks), variant, *cells, str(calls)]


def report_predictions(machine: Machine) -> str:
    """What one GPU sends in an optimizer step without accumulation, and how long the exchange of scores takes."""
    compute = 6 * machine.parameters * machine.tokens / machine.flops
    lines = []
    for ranks in (8, 64, 512, 4096):
        setting = ScaleSetting(machine.parameters, ranks, stage=2, micro_batch_size=machine.micro_batch_size)
        plain = []
        for stage in (2, 3):
            traffic = step_traffic(replace(setting, stage=stage, strategy=None))
            plain.append(sum(sent_bytes(kind, found.payload, ranks) for kind, found in traffic.items()))
        payload = exchange_bytes(setting)
        transfer = sent_bytes("all-gather", payload, ranks) / machine.bandwidth
        nodes = ceil(ranks / machine.node)
        flat = _ring(ranks, machine) + transfer
        hierarchical = 2 * (min(ranks, machine.node) - 1) * machine.local_message + (nodes - 1) * machine.message
        statistics = 2 * latency_steps("all-reduce", ranks) * (machine.message if nodes > 1 else machine.local_message)
        times = (flat, hierarchical + transfer, statistics)
        lines.append(
            [
                f"{ranks:,}",
                *(f"{sent / 1e9:.1f} GB" for sent in plain),
                f"{payload / 1e3:,.1f} kB",
                *(f"{1e3 * seconds:.2f} ms ({seconds / compute:.2%})" for seconds in times),
            ]
        )
    header = ["GPUs", "plain, ZeRO-2", "plain, ZeRO-3", "scores of the step"]
    header += ["one flat ring (now)", "ring of machines", "two all-reduces of sums"]
    return table(header, lines)


def _ring(ranks: int, machine: Machine) -> float:
    """Seconds of latency: a step of a ring is as slow as its slowest link."""
    return latency_steps("all-gather", ranks) * (machine.message if ranks > machine.node else machine.local_message)


if __name__ == "__main__":
    auto_cli(scale, as_positional=False)
