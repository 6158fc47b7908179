"""python -m benchmarks.gpu [--out FOLDER] [--minutes 8] [--tiny] [PART ...]; docs/gpu.md has what it tells.

Most valuable first. Every row is in FOLDER/rows.jsonl the moment it is known, the tables are in FOLDER/report.md; the
same command again does what is missing. --tiny is seconds each, also on a CPU.
"""

import argparse
import importlib.util
import math
import os
import platform
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import deepspeed
import torch
import transformers

from benchmarks.gpu import correctness, large, overhead, quickstart, trainer
from benchmarks.gpu.record import Record
from benchmarks.gpu.run import Part, Run
from benchmarks.ranks import ROOT

PARTS: dict[str, Part] = {
    "correctness": correctness.PART,
    "overhead": overhead.PART,
    "trainer": trainer.PART,
    "large": large.PART,
    "quickstart": quickstart.PART,
    "compiled": overhead.COMPILED_PART,
}


def main() -> None:
    """Run the parts, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n\n")[1])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without any: all of them")
    parser.add_argument("--out", type=Path, help="folder of rows and tables; by default runs/gpu, or runs/gpu-tiny")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun, and none goes on, after these")
    parser.add_argument("--tiny", action="store_true", help="small models, few steps; on a CPU too")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()}: they are {', '.join(PARTS)}")
    if not (asked.tiny or torch.cuda.is_available()):
        parser.error("torch sees no CUDA device: give --tiny to try the command on a CPU")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what is being measured would go on by itself
    out: Path = asked.out or ROOT / "runs" / ("gpu-tiny" if asked.tiny else "gpu")
    deadline = time.monotonic() + 60 * asked.minutes
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    run = Run(Record(out), asked.tiny, device, deadline)
    found = {
        "torch": torch.__version__,
        "deepspeed": deepspeed.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "devices": torch.cuda.device_count(),
        "cores": os.cpu_count(),
    }
    run.row("machine", "machine", found, lambda: {}, -math.inf)
    print(f"{device}: {found}", flush=True)
    tables = {name: _table(run, name) for name in PARTS}  # of earlier runs
    for name in asked.parts or PARTS:
        missing = [module for module in PARTS[name].needs if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name}: skipped, {', '.join(missing)} is not installed", flush=True)
            continue
        began = time.monotonic()
        PARTS[name].run(run, name)
        tables[name] = _table(run, name)
        _write(out / "report.md", device, tables)
        print(f"\n{tables[name]}\n\n{name}: {time.monotonic() - began:.0f} s, {run.left():.0f} s left", flush=True)


def _table(run: Run, name: str) -> str:
    rows = [row for row in run.record.of(name) if row["setting"].get("device") == run.device]
    if not rows:
        return ""
    failed = "".join(f"\n\n**{row['row']}** failed:\n\n```text\n{row['error']}\n```" for row in rows if "error" in row)
    table = PARTS[name].report([row for row in rows if "found" in row])
    return f"## {PARTS[name].title}\n\n{table}{failed}"


def _write(file: Path, device: str, tables: dict[str, str]) -> None:
    text = "\n\n".join(table for table in tables.values() if table)
    file.write_text(f"# On one {device}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
