"""Ranks: starting them, letting them agree on an error, and sharing small objects between them."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.constants import default_pg_timeout

from presence_ds.errors import ConfigError, HealthError, PresenceError
from presence_ds.launch.environment import cores_per_rank, local_size
from presence_ds.trainer.ranks.leftovers import clear_stale_buffers, clear_stale_locks, operator_folder
from presence_ds.trainer.ranks.rank_log import print_warning
from presence_ds.trainer.ranks.rendezvous import rendezvous
from presence_ds.trainer.ranks.stop_signals import StopSignals

T = TypeVar("T")

CONTROL_TIMEOUT = timedelta(days=2)  # the other ranks wait on rank 0 while it reads and tokenizes a large corpus
POLL = 0.02  # seconds between two looks at a collective that may take long


class Ranks:
    """The process group of a run and, beside it, a gloo group with a long timeout for control messages."""

    def __init__(self, signals: StopSignals | None = None, timeout: timedelta | None = None) -> None:
        """Choose this rank's device, before anything asks for it, and connect the ranks.

        Args:
            signals: they end the wait for the other ranks, and what runs under `agreement` before `set_up`.
            timeout: how long a collective may take at least, if that is longer than DeepSpeed's own default.

        Raises:
            ConfigError: DeepSpeed's operators cannot be compiled.
        """
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cores_per_rank(local_size()))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        get_accelerator().set_device(local_rank)  # or the first device would have a context of every rank
        clear_stale_locks(local_rank, operator_folder())
        if local_rank == 0:
            clear_stale_buffers()
        with rendezvous(signals):
            deepspeed.init_distributed(timeout=max(default_pg_timeout, timeout or default_pg_timeout))
            self._control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        self.rank: int = dist.get_rank()
        self.world_size: int = dist.get_world_size()
        self._signals = signals

    @property
    def is_main(self) -> bool:
        """True on global rank 0, the only one that writes shared files and prints."""
        return self.rank == 0

    def warn(self, text: str) -> None:
        """One line of warning on the job's standard error, from rank 0."""
        if self.is_main:
            print_warning(text)

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Run a block without collectives on every rank; if it fails on any, the same error is raised on all.

        A file that cannot be read or written, as on a full disk, is such an error. Also a barrier that waits as long as
        `CONTROL_TIMEOUT`.
        """
        error: PresenceError | None = None
        try:
            with self._signals.raising() if self._signals is not None else nullcontext():
                yield
        except PresenceError as raised:
            error = raised
        except OSError as raised:  # one without a name comes from a write to a file of the run
            error = ConfigError(f"{raised.filename or 'run_dir'}: {raised.strerror or raised}")
        try:
            with self._signals.leaving() if self._signals is not None else nullcontext():
                self.barrier()
            errors = self.gather(error)
        except RuntimeError:  # another rank has left
            raise error or PresenceError("another rank has ended") from None
        for found in errors:
            if found is not None:
                raise found

    def on_main(self, work: Callable[[], T]) -> T:
        """What ``work()`` gives on rank 0, on every rank (any picklable object); an error there is raised on all."""
        with self.agreement():
            found: Any = work() if self.is_main else None
        result: T = self.broadcast(found)
        return result

    def set_up(self) -> None:
        """The first step comes next: from now on signals are left to the trainer."""
        self._signals = None

    def all(self, value: bool) -> bool:
        """Whether ``value`` is true on every rank."""
        return all(self.gather(value))

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value`` (any picklable object), by rank, on every rank."""
        values = [value] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def collect(self, value: T) -> list[T] | None:
        """Every rank's ``value`` (any picklable object), by rank, on rank 0; None on the others."""
        return collect(value, 0, self._control)

    def scatter(self, values: list[T] | None) -> T:
        """Of rank 0's ``values`` (any picklable objects), one for each rank, this rank's."""
        box: list[Any] = [None]
        dist.scatter_object_list(box, values, src=0, group=self._control)
        found: T = box[0]
        return found

    def neighbours(self, size: int) -> "Neighbours":
        """The up to ``size`` ranks that this one is among when all are counted off; called on every rank at once."""
        firsts = range(0, self.world_size, size)
        members = [list(range(first, min(first + size, self.world_size))) for first in firsts]
        if len(members) == 1:
            return Neighbours(members[0], self.rank, self._control)
        groups = [dist.new_group(of, backend="gloo", timeout=CONTROL_TIMEOUT) for of in members]
        return Neighbours(members[self.rank // size], self.rank, groups[self.rank // size])

    def broadcast(self, value: T) -> T:
        """Rank 0's ``value`` on every rank (any picklable object)."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def barrier(self, seconds: float = float("inf")) -> None:
        """Wait for every rank, but no longer than ``seconds`` and `CONTROL_TIMEOUT`.

        In Python, so that a signal is handled meanwhile: `work.wait` would only return to it at the end.
        """
        work = dist.barrier(group=self._control, async_op=True)
        end = time.monotonic() + seconds
        while not work.is_completed() and time.monotonic() < end:
            time.sleep(POLL)
        if work.is_completed():
            work.wait()

    def largest(self, value: int) -> Callable[[], int]:
        """Begin to compare ``value`` between the ranks; what is returned waits for the largest one, and no device."""
        box = torch.tensor(value)
        work = dist.all_reduce(box, dist.ReduceOp.MAX, group=self._control, async_op=True)

        def result() -> int:
            work.wait()
            return int(box)

        return result

    def sum(self, values: list[float], device: torch.device) -> list[float]:
        """Element-wise float64 sum of ``values`` over the ranks."""
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the process group, also after an error that every rank has: gloo's threads may abort an exit without.

        After any other error the rank's peers may be in the middle of a collective, which leaving would wait for, and
        after a failed health check a thread of this rank.
        """
        if kind is None or (issubclass(kind, PresenceError) and not issubclass(kind, HealthError)):
            dist.destroy_process_group()


class Neighbours:
    """Some of the ranks, the first of which collects what they have.

    Attributes:
        ranks: which they are.
        is_first: whether this rank is the first of them.
    """

    def __init__(self, ranks: list[int], rank: int, group: dist.ProcessGroup) -> None:
        self.ranks = ranks
        self.is_first = rank == ranks[0]
        self._group = group

    def collect(self, value: T) -> list[T] | None:
        """``value`` (any picklable object) of each of them, on the first one; None on the others."""
        return collect(value, self.ranks[0], self._group)


def collect(value: T, to: int, group: dist.ProcessGroup) -> list[T] | None:
    """Every ``value`` of the ranks of ``group``, on rank ``to``; None on the others."""
    values: list[T] | None = [value] * dist.get_world_size(group) if dist.get_rank() == to else None
    dist.gather_object(value, values, dst=to, group=group)
    return values
