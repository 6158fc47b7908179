"""Time and memory of a training step with PRESENCE and without, relative to plain DeepSpeed.

    python -m benchmarks.overhead measure [--setting.sequence_length 2048 ...]
    python -m benchmarks.overhead matrix --results overhead.jsonl [--document docs/benchmarks.md]
    python -m benchmarks.overhead kept --results kept.jsonl [--document docs/benchmarks.md]
    python -m benchmarks.overhead peers --results peers.jsonl [--document docs/benchmarks.md]

In every setting the variants take steps in turn, in one process per rank: absolute times on a shared machine mean
little, a ratio of paired steps means more. Memory is measured in processes that train one variant alone.
"""

import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from benchmarks.matrix import Plan, cpu_matrix, gpu_matrix, kept_plan, peers_plan
from benchmarks.ranks import run_module
from benchmarks.setting import Setting
from benchmarks.variants import PEERS, VARIANTS, WHOLE

INSTALLED = [name for name in VARIANTS if name not in PEERS]


def measure(setting: Setting, variants: list[str] = INSTALLED, memory: bool = True) -> dict[str, Any]:
    """Measure one setting.

    Args:
        setting: What to train.
        variants: Which of `benchmarks.variants.VARIANTS`; "plain" must be among them.
        memory: Also measure peak memory, in one more run per variant.

    Returns:
        The setting, ``parameters``, and by variant: ``median_s`` of a step, ``ratio`` of the medians to plain's,
        ``quartiles`` of the paired ratios, ``memory_mib``.

    Raises:
        RuntimeError: a rank failed; the message ends with its output.
    """
    timed = run_ranks(setting, variants)
    plain = timed["seconds"]["plain"]
    found: dict[str, Any] = {}
    for name, seconds in timed["seconds"].items():
        paired = [ours / theirs for ours, theirs in zip(seconds, plain, strict=True)]
        low, _, high = statistics.quantiles(paired, n=4) if len(paired) > 1 else paired * 3
        found[name] = {
            "median_s": round(statistics.median(seconds), 4),
            "ratio": round(statistics.median(seconds) / statistics.median(plain), 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
    if memory:
        for name, peak in zip(variants, _peaks(setting, variants), strict=True):
            found[name]["memory_mib"] = peak
    return {"setting": setting.as_dict(), "parameters": timed["parameters"], "variants": found}


def _peaks(setting: Setting, variants: list[str]) -> list[int]:
    """Peak memory of each variant alone in MiB, from its second step; on a CPU several at a time."""
    alone = replace(setting, steps=1, warmup=1)
    at_a_time = 1
    if not torch.cuda.is_available():
        alone = replace(alone, threads=1)
        at_a_time = max(1, len(os.sched_getaffinity(0)) // setting.ranks)
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(lambda name: run_ranks(alone, [name])["memory_mib"], variants))


def matrix(results: Path, document: Path | None = None, steps: int | None = None) -> None:
    """Measure the matrix of settings for this machine, one after another, and make tables of it.

    Args:
        results: JSON lines; every measured setting is added to it, and settings that are there are not measured again.
        document: Markdown file to put the tables into. null: print them.
        steps: Measured steps of each variant, where they shall be fewer or more than planned.
    """
    planned = gpu_matrix() if torch.cuda.is_available() else cpu_matrix()
    write_section(document, "overhead", report(_rows(planned, results, steps)))


def peers(
    results: Path, document: Path | None = None, steps: int | None = None, sequence_length: int | None = None
) -> None:
    """Measure other ways to score samples, as far as they are installed, beside plain DeepSpeed and `one_pass`.

    Args:
        results, document, steps: As for ``matrix``.
        sequence_length: Tokens per sample, where they shall be fewer or more than planned.
    """
    planned = peers_plan()
    if sequence_length is not None:
        planned = [(replace(s, sequence_length=sequence_length), names, memory) for s, names, memory in planned]
    write_section(document, "peers", report(_rows(planned, results, steps)))


def kept(results: Path, document: Path | None = None, steps: int | None = None) -> None:
    """Measure what a step costs where freed memory is kept, as a GPU's allocator keeps it.

    Args:
        results, document, steps: As for ``matrix``.
    """
    write_section(document, "kept", report(_rows(kept_plan(), results, steps)))


def _rows(planned: Plan, results: Path, steps: int | None) -> list[dict[str, Any]]:
    """Of every setting, from ``results`` where they are there."""
    known = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    measured = []
    for setting, variants, memory in planned:
        if steps is not None:
            setting = replace(setting, steps=steps)
        same = (row for row in known if row["setting"] == setting.as_dict() and list(row["variants"]) == variants)
        row = next(same, None)
        if row is None:
            row = measure(setting, variants, memory)
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        measured.append(row)
    return measured


def run_ranks(setting: Setting, variants: list[str]) -> dict[str, Any]:
    """Run `benchmarks.worker` on every rank of ``setting``; what rank 0 found.

    Raises:
        ValueError: a variant cannot be had in this setting.
        RuntimeError: a rank failed; the message ends with its output.
    """
    if setting.stage == 3 and (refused := [name for name in variants if name in WHOLE]):
        raise ValueError(f"variant {refused[0]} needs whole parameters, setting.stage is 3: use 1 or 2")
    options = {"setting": setting.as_dict(), "variants": variants}
    return run_module("benchmarks.worker", options, setting.ranks, setting.environment())


def report(rows: list[dict[str, Any]]) -> str:
    """Tables in markdown, a row for every setting, a column for every variant but plain; of memory if it is known."""
    names = [name for name in VARIANTS if name != "plain" and any(name in row["variants"] for row in rows)]

    def title(row: dict[str, Any]) -> list[str]:
        s = row["setting"]
        shown = (s["precision"], s["sequence_length"], s["batch_size"], s["vocabulary"], s["stage"], s["ranks"])
        return [f"{row['parameters'] / 1e6:.0f} M", *map(str, shown), "keeps" if s["keep_freed"] else "default"]

    def time(row: dict[str, Any], name: str) -> str:
        if name not in row["variants"]:
            return "–"
        found = row["variants"][name]
        return f"{found['ratio']:.2f} ({found['quartiles'][0]:.2f}–{found['quartiles'][1]:.2f})"

    def memory(row: dict[str, Any], name: str) -> str:
        if name not in row["variants"]:
            return "–"
        return f"{row['variants'][name]['memory_mib'] / row['variants']['plain']['memory_mib']:.2f}"

    settings = ["model", "precision", "T", "samples per rank", "vocabulary", "ZeRO", "ranks", "allocator"]
    times = [
        [*title(row), f"{row['variants']['plain']['median_s']:.2f} s", *(time(row, name) for name in names)]
        for row in rows
    ]
    memories = [
        [*title(row), f"{row['variants']['plain']['memory_mib']} MiB", *(memory(row, name) for name in names)]
        for row in rows
        if "memory_mib" in row["variants"]["plain"]
    ]
    header = [*settings, "plain step", *names]
    times_said = (
        f"Step time relative to plain DeepSpeed: ratio of medians (quartiles of the paired ratios)\n\n"
        f"{table(header, times)}"
    )
    return times_said + (
        f"\n\nPeak memory relative to plain DeepSpeed\n\n{table(header, memories)}" if memories else ""
    )


if __name__ == "__main__":
    if found := auto_cli([measure, matrix, kept, peers], as_positional=False):
        print(json.dumps(found, indent=2))
