"""The process between a user and the DeepSpeed launcher: it passes signals on, and tells how the ranks ended.

The launcher is two processes, the second of which starts the ranks. Neither passes a signal on that the ranks could
answer: the first dies of it, the second kills the ranks after 30 seconds. So both run with the signals of the recipe
blocked, which a process inherits, and the ranks unblock them when their handlers are in place: a signal to every
process of a job, as SLURM sends it, only reaches the ranks, and one that comes too early waits for them.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

import psutil

from presence_ds.errors import FAILED

SUPERVISED = "PRESENCE_SUPERVISED"  # variable of the ranks of `supervise`
POLL = 0.5  # seconds


def supervise(command: list[str], processes: int, signals: list[int]) -> int:
    """Run the DeepSpeed launcher and wait for it.

    Args:
        command: starts it, with ``processes`` ranks.
        signals: numbers of the signals to pass on to the ranks. SIGINT and SIGTERM, where they are not among them, go
            to the launcher, which ends the ranks.

    Returns:
        The exit status: that of the rank that ended first if it is not 0; `FAILED` if a signal killed it, 128 and the
        signal where that was to end it.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handled = {*signals, signal.SIGINT, signal.SIGTERM}
    for number in handled:
        signal.signal(number, note)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if signal.SIGINT not in signals:  # the launcher would answer it with a traceback; `Failures` undoes it in the ranks
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    runner = subprocess.Popen(command, env=os.environ | {SUPERVISED: "1"})
    signal.signal(signal.SIGINT, note)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    tree = psutil.Process(runner.pid)
    ranks: list[psutil.Process] = []
    sent: set[tuple[int, int]] = set()
    while runner.poll() is None:
        if len(ranks) < processes:
            ranks = [rank for child in _children(tree) for rank in _children(child)]
        for number in received:
            for target in ranks if number in signals else _children(tree):
                if (number, target.pid) not in sent:
                    sent.add((number, target.pid))
                    _send(target, number)
        with suppress(subprocess.TimeoutExpired):
            runner.wait(POLL)
    status = runner.returncode
    if left := [rank for rank in ranks if _is_alive(rank)]:
        if status <= 0:  # otherwise a rank has failed, and the launcher has just killed the others
            print("presence: error: the launcher of the ranks was killed; they are ended now", file=sys.stderr)
            status = 1
        _end(left)
    for number in handled:  # Python would go back to dying of them before it has ended
        signal.signal(number, signal.SIG_IGN)
    if status and signal.SIGINT in received and signal.SIGINT not in signals:
        return 128 + signal.SIGINT
    if status > 256 - signal.NSIG:  # how DeepSpeed's launcher says that a signal killed a rank
        status -= 256
        if -status not in (signal.SIGINT, signal.SIGTERM):
            reason = ", for want of memory perhaps" if status == -signal.SIGKILL else ""
            print(f"presence: error: a rank was killed: {signal.strsignal(-status)}{reason}", file=sys.stderr)
            return FAILED
    return status if status >= 0 else 128 - status


def _end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and kill them if they do not."""
    for process in processes:
        _send(process, signal.SIGTERM)
    for process in psutil.wait_procs(processes, timeout=GRACE)[1]:
        _send(process, signal.SIGKILL)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children())
    return []


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # not to another process that has got its number since


GRACE = 300.0  # seconds for a last checkpoint
