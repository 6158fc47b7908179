"""Samples per second of scoring a corpus, relative to a bare forward and input-gradient pass.

    python -m benchmarks.score [--setting.hidden_size 1024 ...] [--document docs/benchmarks.md]

All variants take the same samples in turn, in one process of its own: absolute times on a shared machine mean little, a
ratio means more, and on a CPU it is of processor time. What else the machine does only ever adds to that, so that the
lower quartile of the stretches is compared. The bare passes have the samples in memory; scoring reads them from a
dataset, and ends with the columns of a file on the host.
"""

import statistics
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from benchmarks.ranks import run_module
from benchmarks.setting import Setting


def measure(setting: Setting, batches: int = 8, pairs: int = 21) -> dict[str, dict[str, Any]]:
    """`summary` of one setting, of which ranks, stage and steps are not used.

    Args:
        setting: The model and its samples.
        batches: Batches of a stretch.
        pairs: Stretches of each variant, two at least, after one that does not count.
    """
    options = {"setting": setting.as_dict(), "batches": batches, "pairs": pairs}
    seconds = run_module("benchmarks.score_worker", options, 1, setting.environment())
    return summary(seconds, batches * setting.batch_size)


def summary(seconds: dict[str, list[float]], samples: int) -> dict[str, dict[str, Any]]:
    """What the stretches of ``samples`` have taken, the first variant's being what the others are compared with.

    Returns:
        By variant: ``samples_per_second`` and ``ratio`` to the first, both of the lower quartiles of ``seconds``; and
        ``quartiles`` of the ratios of stretches that came after one another.
    """
    first = next(iter(seconds.values()))
    fast = {name: statistics.quantiles(clocked, n=4, method="inclusive")[0] for name, clocked in seconds.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, clocked in seconds.items():
        ratios = [theirs / ours for ours, theirs in zip(clocked, first, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        found[name] = {
            "samples_per_second": round(samples / fast[name], 2),
            "ratio": round(next(iter(fast.values())) / fast[name], 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
    return found


def report(found: dict[str, dict[str, Any]]) -> str:
    """A table in markdown."""
    rows = [
        [
            name,
            f"{row['samples_per_second']:,.1f}",
            f"{row['ratio']:.2f}",
            f"{row['quartiles'][0]:.2f}–{row['quartiles'][1]:.2f}",
        ]
        for name, row in found.items()
    ]
    clock = "second" if torch.cuda.is_available() else "second of processor time"
    return table(["", f"samples per {clock}", "relative", "of pairs, quartiles"], rows)


def main(setting: Setting, batches: int = 8, pairs: int = 21, document: Path | None = None) -> None:
    """Measure and make a table.

    Args:
        setting: The model and its samples, of which ranks, stage and steps are not used.
        batches: Batches of a stretch.
        pairs: Stretches of each variant.
        document: Markdown file to put the table into. null: print it.
    """
    write_section(document, "score", report(measure(setting, batches, pairs)))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
