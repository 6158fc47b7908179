"""profile/: what the operators of a few steps take, by torch's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from deepspeed.accelerator import get_accelerator

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.profiler_config import ProfilerConfig
from presence_ds.trainer.ranks.rank_log import print_warning

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer

OPERATORS = 30  # rows of the table
ALLOCATIONS = 200_000  # most events of a memory snapshot; the newest stay


class Profiler(Callback):
    """Profiles `ProfilerConfig.steps` steps of this process on one rank, and writes what was found.

    A step ends when all callbacks before have done theirs, with what they evaluate or save. A start of the run that
    ends within these steps leaves nothing.
    """

    def __init__(self, config: ProfilerConfig, folder: Path, rank: int) -> None:
        self._config = config
        self._folder = folder
        self._rank = rank
        self._steps = 0  # of this process
        self._fits = False  # whether the run has as many left
        self._profile: torch.profiler.profile | None = None
        self._memory: Any = None

    def on_train_start(self, trainer: Trainer) -> None:
        left = trainer.total_steps - trainer.step
        self._fits = self._config.last_step <= left
        if not self._fits:
            print_warning(
                f"rank {self._rank} profiles nothing: profiler.first_step and profiler.steps come to step "
                f"{self._config.last_step} of this start, and {left} are left"
            )
        self._begin_if_due()

    def on_step_end(self, trainer: Trainer) -> None:
        self._steps += 1
        if self._profile is None:
            self._begin_if_due()
        elif self._steps < self._config.last_step:
            self._profile.step()
        else:
            self._write(trainer.step)  # while the others wait

    def close(self) -> None:
        self._stop()

    def _begin_if_due(self) -> None:
        if not self._fits or self._steps != self._config.first_step - 2:  # one step of warm-up
            return
        self._profile = torch.profiler.profile(
            activities=torch.profiler.supported_activities(),
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=self._config.steps),
            record_shapes=True,
        )
        self._profile.start()
        if self._config.memory and _records_memory():
            self._memory = torch.cuda.memory
            self._memory._record_memory_history(max_entries=ALLOCATIONS)

    def _write(self, last_step: int) -> None:
        """Stop, and write the steps up to ``last_step`` of the run. A full disk is only said."""
        profile, memory = self._profile, self._memory
        assert profile is not None
        steps = f"{last_step - self._config.steps + 1:08d}-{last_step:08d}"
        name = f"rank_{self._rank:05d}-steps_{steps}"
        try:
            self._folder.mkdir(exist_ok=True)
            if memory is not None:
                memory._dump_snapshot(str(self._folder / f"{name}.memory.pickle"))
            self._stop()
            profile.export_chrome_trace(str(self._folder / f"{name}.trace.json.gz"))
            (self._folder / f"{name}.operators.txt").write_text(_table(profile), encoding="utf-8")
        except OSError as error:
            print_warning(f"{self._folder} cannot be written ({error.strerror}); the profile is lost")
            self._stop()

    def _stop(self) -> None:
        profile, self._profile = self._profile, None
        memory, self._memory = self._memory, None
        if memory is not None:
            memory._record_memory_history(enabled=None)
        if profile is not None:
            profile.stop()


def _table(profile: torch.profiler.profile) -> str:
    """The operators that take most of the device's time, or of the processor's where there is no other."""
    device = "cpu" if get_accelerator().device_name() == "cpu" else "device"
    return profile.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=OPERATORS)


def _records_memory() -> bool:
    """Whether torch can record what is allocated: documented, but under names that may change."""
    names = ("_record_memory_history", "_dump_snapshot")
    return get_accelerator().device_name() == "cuda" and all(hasattr(torch.cuda.memory, name) for name in names)
