"""One process of part overhead: each variant in turn with plain, a row of each. `benchmarks.gpu.overhead` starts it."""

import gc
import logging
import os
import statistics
import traceback
import warnings
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from jsonargparse import auto_cli
from torch import Tensor

from benchmarks.gpu.profiling import extra, profiled
from benchmarks.gpu.record import Record
from benchmarks.setting import Setting
from benchmarks.variants import VARIANTS, Step
from benchmarks.worker import timed
from presence_ds.influence.kernels import trial

PROFILED = "one_pass_projected"


def work(setting: Setting, names: list[str], folder: Path, part: str, device: str) -> None:
    """Measure, and add a row of each name to the record as soon as it is known.

    Its ``found``: ``median_s`` of a step, ``ratio`` of medians to plain's and ``quartiles`` of the paired ratios,
    ``memory_mib``, the highest that a step reaches without what other variants hold (null on a CPU), and
    ``memory_ratio``; ``parameters``. The names "plain" and "profile" are a variant alone and a comparison of kernels.

    It ends before it is through where variants that are done with hold half of the device's memory, as engines under
    ZeRO-3 do.

    Args:
        setting: What to train.
        names: Which of `benchmarks.variants.VARIANTS`, and "profile".
        folder: Of the record.
        part: Of the rows.
        device: Its name, for the rows' settings.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(setting.cpu_threads())
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed()
    record, key = Record(folder), setting.as_dict() | {"device": device}
    measure = _Measure(setting)
    for name in names:
        if measure.is_full():
            return  # the next process goes on
        found: dict[str, Any] = {}
        try:
            if name == "profile":
                found = measure.profile()
            else:
                found = measure.plain_alone() if name == "plain" else measure.beside_plain(name)
        except Exception:
            record.add(part, name, key, error=traceback.format_exc()[-3000:])
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # raises where the device can do no more: then the next process goes on
        else:
            record.add(part, name, key, found=found)


class _Measure:
    """Steps of variants, each beside those of plain, which stays."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        shape = (setting.warmup + setting.steps, setting.batch_size, setting.sequence_length)
        self._batches = torch.randint(setting.vocabulary, shape, generator=torch.Generator().manual_seed(1))
        if torch.cuda.is_available():
            self._batches = self._batches.cuda()
        self._plain, self._plain_peak = self._built("plain")

    def is_full(self) -> bool:
        """Whether what there is holds half of the device's memory."""
        if not torch.cuda.is_available():
            return False
        gc.collect()
        return torch.cuda.memory_allocated() > torch.cuda.get_device_properties().total_memory / 2

    def plain_alone(self) -> dict[str, Any]:
        seconds = [timed(self._plain, ids)[0] for ids in self._measured]
        return self._row(seconds, seconds, self._plain_peak)

    def beside_plain(self, name: str) -> dict[str, Any]:
        step, peak = self._built(name)
        ours: list[float] = []
        theirs: list[float] = []
        for number, ids in enumerate(self._measured):
            # the order turns, so that none always finds the caches warm
            for one in (self._plain, step) if number % 2 == 0 else (step, self._plain):
                (ours if one is step else theirs).append(timed(one, ids)[0])
        _end(step)
        return self._row(ours, theirs, peak)

    def profile(self) -> dict[str, Any]:
        step, _ = self._built(PROFILED)
        ids = self._batches[-1]
        found = {"plain": profiled(lambda: self._plain(ids)), PROFILED: profiled(lambda: step(ids))}
        _end(step)
        kernels = [one.pop("by_kernel") for one in found.values()]
        return found | {"extra": extra(*kernels)}

    @property
    def _measured(self) -> Tensor:
        return self._batches[self._setting.warmup :]

    def _built(self, name: str) -> tuple[Step, int | None]:
        """The variant after its first steps, and MiB that it holds at most, of which there are none without a GPU."""
        gc.collect()  # of the variant before
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
        step = VARIANTS[name](self._setting)
        for ids in self._batches[: self._setting.warmup]:
            step(ids)
        if not cuda:
            return step, None
        torch.cuda.reset_peak_memory_stats()
        step(self._batches[0])
        return step, round((torch.cuda.max_memory_allocated() - before) / 2**20)

    def _row(self, ours: list[float], theirs: list[float], peak: int | None) -> dict[str, Any]:
        paired = [mine / plain for mine, plain in zip(ours, theirs, strict=True)]
        low, _, high = statistics.quantiles(paired, n=4)
        return {
            "parameters": self._setting.parameters(),
            "median_s": round(statistics.median(ours), 5),
            "ratio": round(statistics.median(ours) / statistics.median(theirs), 4),
            "quartiles": [round(low, 4), round(high, 4)],
            "memory_mib": peak,
            "failed_kernels": trial.failed(),
            "memory_ratio": None if peak is None or not self._plain_peak else round(peak / self._plain_peak, 3),
        }


def _end(step: Step) -> None:
    """Have the engine that a step is taken by let go of what it holds; it does not where only the step is forgotten."""
    for cell in step.__closure__ or ():
        if isinstance(cell.cell_contents, DeepSpeedEngine):
            cell.cell_contents.destroy()


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
