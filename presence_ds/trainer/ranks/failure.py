"""A rank that fails ends the run: once for the user, and at once on the other ranks, which may wait for it for ever.

The traceback goes into the rank's log. Rank 0 says in a line which rank failed and why, and all end with one status.
"""

import os
import signal
import sys
import threading
from types import TracebackType
from typing import NoReturn

from presence_ds.errors import FAILED, HealthError, PresenceError, Stopped
from presence_ds.launch.environment import local_size
from presence_ds.launch.supervisor import SUPERVISED
from presence_ds.trainer.ranks.messages import Message, Messages
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.rank_log import print_error, print_line, write_traceback

INTERRUPTED = 128 + signal.SIGINT
ORDERLY = 2.0  # seconds in which a rank may end by itself when another one has failed
SAME_ERROR = 5.0  # seconds in which rank 0 says what this rank found too
LOST_PEER = 10.0  # seconds in which a rank that failed is heard of, when a collective has failed here
SHOWN = 300  # characters of an error's message
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "another rank has ended")


class Failures:
    """From `connect` to the end of the ``with`` block, the outermost one of a run, ranks fail together.

    Attributes:
        hang: set when a rank has seen that nothing moves any more (`presence_ds.trainer.run_directory.hang_watch`).
    """

    def __init__(self) -> None:
        self.hang = threading.Event()
        self._first: Message | None = None
        self._heard = threading.Event()
        self._lock = threading.Lock()
        self._rank = int(os.environ.get("RANK", "0"))
        self._messages = Messages(self._rank, self._receive)

    def connect(self, ranks: Ranks) -> None:
        """Begin to hear of other ranks' failures; on every rank at once."""
        if ranks.world_size > 1:
            self._messages.connect(ranks)

    def call_hang(self) -> None:
        """Tell every rank that nothing moves, and that processes which end now do so on purpose."""
        self._send(Message("hang", self._rank))

    def __enter__(self) -> "Failures":
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # the supervisor's doing
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._messages.close()
        elif isinstance(error, PresenceError):
            self._end_alike(error)
        else:
            self._fail(error)

    def _receive(self, message: Message) -> None:
        """In a thread: of the first rank that fails, all others learn it here and end."""
        if message.kind == "hang":
            self.hang.set()
            self._heard.set()  # the watches of all ranks end them
            return
        with self._lock:
            if self._heard.is_set():
                return
            if message.kind == "lost":
                text = f"rank {message.rank} has ended without a word: it was killed, for want of memory perhaps"
                message = Message("lost", message.rank, FAILED, text)
            self._first = message
            lost, size = message.kind == "lost", local_size()
            speaker = 1 if lost and message.rank == 0 else 0
            # the supervisor says it of a rank of this machine
            is_said = lost and SUPERVISED in os.environ and message.rank // size == self._rank // size
            if message.text and self._rank == speaker and not is_said:
                print_error(message.text)
            self._heard.set()  # what waits for this ends the process
        timer = threading.Timer(ORDERLY, os._exit, [message.status])
        timer.daemon = True
        timer.start()

    def _send(self, message: Message) -> None:
        if not self._messages.send(message):
            if message.text:
                print_error(message.text)
            self._receive(message)

    def _end_alike(self, error: PresenceError) -> NoReturn:
        """End with an error that every rank has as a rule, which rank 0 then says."""
        line = " ".join(str(error).split())
        if isinstance(error, Stopped):  # every rank, and all leave now
            if self._rank == 0:
                print_line(f"presence: {error}")
            self._messages.close()
        elif self._rank == 0:
            print_error(line)
            self._send(Message("failed", 0, error.status))
        elif not self._heard.wait(SAME_ERROR):
            self._send(Message("failed", self._rank, error.status, line))
        if isinstance(error, HealthError):  # a thread that waits for a dead node might abort an orderly exit
            os._exit(error.status)
        sys.exit(error.status)

    def _fail(self, error: BaseException) -> NoReturn:
        """End with an error that this rank alone has."""
        place = write_traceback(error)
        what = " ".join(str(error).split())[:SHOWN]
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
        if any(sign in what for sign in LOST):  # of another rank, which says more
            self._heard.wait(LOST_PEER)
        if not self._heard.is_set():
            if isinstance(error, KeyboardInterrupt):
                message = Message("failed", self._rank, INTERRUPTED, f"rank {self._rank} was interrupted")
            else:
                text = f"rank {self._rank} failed: {what}; its traceback is in {place}"
                message = Message("failed", self._rank, FAILED, text)
            self._send(message)
            self._heard.wait(ORDERLY)
        os._exit(FAILED if self._first is None else self._first.status)
