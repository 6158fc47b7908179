"""While ranks connect: where they are to meet is said if it takes long, and a signal ends a wait that lasts."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistError

from presence_ds.errors import PresenceError
from presence_ds.launch.environment import environment_rank
from presence_ds.trainer.ranks.rank_log import print_line
from presence_ds.trainer.ranks.stop_signals import StopSignals, stopped_in_setup

NOTICE = 60.0  # seconds between two lines of rank 0 about it
PATIENCE = 20.0  # seconds from a signal on in which the others may still come, so that all end in the same way


@contextmanager
def rendezvous(signals: StopSignals | None) -> Iterator[None]:
    """Connect the ranks in it. torch waits outside of Python, where no handler of a signal runs; another thread looks.

    Args:
        signals: those that end the run; None: signals do what they did, and nothing is said.

    Raises:
        PresenceError: the ranks have not met within the time that torch gives them.
    """
    if signals is None:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    met = threading.Event()
    watch = threading.Thread(target=_watch, args=(signals, reader, met), daemon=True)
    before = signal.set_wakeup_fd(writer)  # each signal writes its number there, wherever the main thread is
    watch.start()
    try:
        yield
    except DistError as error:
        raise PresenceError(f"{_place()}: {str(error).strip().splitlines()[0]}") from None
    finally:
        met.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        watch.join()
        os.close(reader)


def _watch(signals: StopSignals, reader: int, met: threading.Event) -> None:
    number = signals.received
    while number is None and not met.is_set():
        readable, _, _ = select.select([reader], [], [], NOTICE)
        if readable:
            number = next((number for number in os.read(reader, 512) if number in signals.numbers), None)
        else:
            _say(_place())
    if number is not None and not met.wait(PATIENCE):
        stopped = stopped_in_setup(number)
        _say(f"{stopped}; {_place()}")
        os._exit(stopped.status)


def _say(text: str) -> None:
    if environment_rank() == 0:
        print_line(f"presence: {text}")


def _place() -> str:
    name = os.environ.get
    place = f"{name('MASTER_ADDR')}:{name('MASTER_PORT')}"
    return f"rank {environment_rank()} of {name('WORLD_SIZE')} has not met the others yet, at {place}"
