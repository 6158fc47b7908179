"""Host time between the sweeps of `one_pass`, in which a device has nothing to do.

    python -m benchmarks.between_sweeps

That is from the moment when the host has the gathered scores to the first weight gradient: weights are made of the
scores, DeepSpeed's forward ends and its backward begins. A narrow model has as many layers and parameters as a large
one, and leaves a CPU little else to do.
"""

import json
import logging
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import auto_cli

import presence_ds
from benchmarks.ranks import rendezvous
from benchmarks.setting import Setting
from presence_ds.engine import weight_gradients
from presence_ds.reweighting.sizes import Sizes


def measure(layers: int = 24, samples: int = 8, steps: int = 60, result: Path | None = None) -> None:
    """Milliseconds, of the second half of the steps: the least of them and the median.

    Args:
        layers: Blocks of a Llama.
        samples: In a step.
        steps: To take.
        result: A file for them. null: print them.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    setting = Setting(
        hidden_size=64, layers=layers, vocabulary=512, sequence_length=32, batch_size=samples, precision="bf16"
    )
    seen: dict[str, float] = {}
    _note(Sizes, "gather_with", seen, before=False)
    _note(weight_gradients._Sweep, "gradient", seen, before=True)
    found = []
    if "RANK" not in os.environ:
        os.environ |= rendezvous(1)[0]
    engine, *_ = presence_ds.initialize(**setting.deepspeed(setting.model()), presence={})
    for _ in range(steps):
        seen.clear()
        ids = torch.randint(setting.vocabulary, (samples, setting.sequence_length))
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
        found.append(1e3 * (seen["gradient"] - seen["gather_with"]))
    kept = found[steps // 2 :]
    told = json.dumps({"least_ms": round(min(kept), 2), "median_ms": round(statistics.median(kept), 2)})
    if result is None:
        print(told)
    else:
        result.write_text(told, encoding="utf-8")
    dist.destroy_process_group()


def _note(owner: type, name: str, seen: dict[str, float], *, before: bool) -> None:
    """Note when a method is first called in a step, or has returned."""
    method = getattr(owner, name)

    def noted(*args: Any) -> Any:
        if before:
            seen.setdefault(name, time.perf_counter())
        result = method(*args)
        if not before:
            seen[name] = time.perf_counter()
        return result

    setattr(owner, name, noted)


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
