"""Part overhead: what a step costs beside a plain one, and where the extra goes."""

import json
from dataclasses import replace
from typing import Any

from benchmarks.document import table
from benchmarks.gpu.record import Row
from benchmarks.gpu.run import Part, Run
from benchmarks.matrix import gpu_setting
from benchmarks.setting import Setting

PROFILE = "profile"
COMPILED = ["plain", "plain_compiled", "two_pass_compiled"]
# By what one wants to know first; each is measured in turn with plain.
ROWS = (
    "plain",
    "one_pass_projected",
    PROFILE,
    "one_pass_without_kernels",
    "one_pass_aligned",
    "plain_chunked_loss",
    "loss_signal",
    "two_pass_projected",
    "one_pass_exact",
)
TINY = Setting(
    hidden_size=64, layers=2, vocabulary=300, sequence_length=32, precision="bf16", threads=1, steps=3, warmup=1
)
LEAST_S, MOST_S = 30.0, 150.0


def run(it: Run, part: str) -> None:
    """ZeRO 2, then 3, of 370 M parameters, 8 samples of 2,048 tokens, one rank."""
    for stage in (2, 3):
        setting = replace(TINY if it.tiny else replace(gpu_setting(), batch_size=8), stage=stage)
        steps(it, part, setting, list(ROWS[:3] if it.tiny and stage == 3 else ROWS), MOST_S)


def run_compiled(it: Run, part: str) -> None:
    """What inductor compiles in a minute each, so that it comes last; ZeRO-2, the same model."""
    if it.tiny:
        print(f"{part}: not in the short form", flush=True)
    else:
        steps(it, part, replace(gpu_setting(), batch_size=8), COMPILED, MOST_S)


def steps(it: Run, part: str, setting: Setting, names: list[str], most_s: float) -> None:
    """Have `benchmarks.gpu.steps` make rows of a setting; where it ends before its time, go on behind what ended it."""
    key = setting.as_dict() | {"device": it.device}
    while True:
        missing = [name for name in names if it.record.find(part, name, key) is None]
        if not missing:
            return
        if it.left() < (1.0 if it.tiny else LEAST_S):
            print(f"{part}: no time for {', '.join(missing)} of ZeRO-{setting.stage}", flush=True)
            return
        arguments = ["--setting", json.dumps(setting.as_dict()), "--names", json.dumps(missing)]
        arguments += ["--folder", str(it.record.folder.resolve()), "--part", part, "--device", it.device]
        count, error = len(missing), ""
        try:
            it.python("-m", "benchmarks.gpu.steps", *arguments, most_s=most_s)
        except RuntimeError as failure:
            error = str(failure)
        missing = [name for name in missing if it.record.find(part, name, key) is None]
        if len(missing) == count or (missing and error):  # the first of them was in progress
            it.record.add(part, missing[0], key, error=error or "no row was made")


def report(rows: list[Row]) -> str:
    """A line for every variant of a setting, then where the extra of one_pass goes."""
    lines, profiles = [], ""
    failed = sorted({kernel for row in rows for kernel in row["found"].get("failed_kernels", ())})
    for row in rows:
        setting, found = row["setting"], row["found"]
        if row["row"] == PROFILE:
            profiles += f"\n\n{_profile(setting, found)}"
            continue
        low, high = found["quartiles"]
        lines.append(
            [
                f"{found['parameters'] / 1e6:,.0f} M",
                f"{setting['batch_size']} × {setting['sequence_length']}",
                f"{setting['stage']}{', offload' if setting['offload'] else ''}",
                row["row"],
                f"{1e3 * found['median_s']:.1f} ms",
                f"{found['ratio']:.3f} ({low:.3f}–{high:.3f})",
                f"{found['memory_mib']:,}" if found["memory_mib"] is not None else "–",
                f"{found['memory_ratio']:.2f}" if found["memory_ratio"] is not None else "–",
            ]
        )
    header = ["model", "samples × T", "ZeRO", "variant", "step", "of plain's", "peak, MiB", "of plain's"]
    said = f"\n\nThese Triton kernels failed their trial, and PyTorch took their place: {', '.join(failed)}."
    return table(header, lines) + (said if failed else "") + profiles


def _profile(setting: dict[str, Any], found: dict[str, Any]) -> str:
    """What the device did in a step of plain and of one_pass, and the kernels that differ most."""
    sides = {name: found[name] for name in ("plain", "one_pass_projected")}
    figures = {
        "launches": "launches",
        "kernels": "kernels, copies and fills",
        "synchronisations": "calls that wait for the device",
        "span_ms": "from the first kernel to the last, ms",
        "busy_ms": "of these the device works, ms",
        "gaps": "gaps of 10 µs and more",
        "gaps_ms": "their sum, ms",
        "longest_gap_ms": "the longest, ms",
    }
    lines = [
        [
            words,
            *(f"{side[name]:,.1f}" if isinstance(side[name], float) else f"{side[name]:,}" for side in sides.values()),
        ]
        for name, words in figures.items()
    ]
    waits = {name: ", ".join(f"{call} × {n}" for call, n in side["waits"].items()) for name, side in sides.items()}
    lines.append(["those calls", *waits.values()])
    extra = [
        [f"`{one['kernel'][:90]}`", f"{one['plain']:.0f} → {one['ours']:.0f}", f"{one['extra_ms']:+.3f}"]
        for one in found["extra"]
    ]
    title = f"Per step, {setting['batch_size']} × {setting['sequence_length']}, ZeRO-{setting['stage']}"
    return (
        f"{title}\n\n{table(['', *sides], lines)}\n\nKernels by what one_pass adds to their time\n\n"
        f"{table(['kernel', 'calls', 'ms more'], extra)}"
    )


PART = Part("Overhead", run, report)
COMPILED_PART = Part("Overhead, compiled", run_compiled, report)
