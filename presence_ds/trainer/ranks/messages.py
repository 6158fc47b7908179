"""Messages between ranks outside of collectives, in which a rank may wait for one that will not come.

Every rank keeps a connection to rank 0, which passes on what a rank says to all of them, in one order. A connection
that ends without a farewell tells that the process at its other end was killed. Nothing is sent while all is well.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial

from presence_ds.trainer.ranks.process_group import Ranks

CONNECT = 20.0  # seconds to reach rank 0
SEND = 5.0  # seconds for a few bytes
LOSS = 1.0  # seconds in which a process whose peer has gone may learn why, or is ended itself


@dataclass(frozen=True)
class Message:
    """What one rank tells all.

    Attributes:
        kind: failed, lost (it was killed), hang, or bye.
        rank: whom it is about.
        status: that the run ends with.
        text: for the user, one line.
    """

    kind: str
    rank: int
    status: int = 0
    text: str = ""


class Messages:
    """This rank's end. A run that cannot connect goes on without: its messages stay on this rank."""

    def __init__(self, rank: int, receive: Callable[[Message], None]) -> None:
        """``receive`` is called in a thread, with every message of every rank, this one's included."""
        self._rank = rank
        self._receive = receive
        self._closed = False
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._expected = 0  # connections to rank 0
        self._connections: dict[int, socket.socket] = {}  # by rank; on ranks other than 0 that to rank 0

    def connect(self, ranks: Ranks) -> None:
        """Begin to listen; on every rank at once. Rank 0 waits for the others, but not for long."""
        server = socket.create_server(("", 0), backlog=1024) if ranks.is_main else None
        port = server.getsockname()[1] if server is not None else 0
        port, token = ranks.broadcast((port, secrets.token_hex(16)))
        self._expected = ranks.world_size - 1
        address = os.environ.get("MASTER_ADDR", "127.0.0.1"), port
        hear = partial(self._listen, address, token) if server is None else partial(self._serve, server, token)
        threading.Thread(target=hear, daemon=True, name="messages").start()
        if ranks.is_main:
            self._connected.wait(CONNECT)

    def send(self, message: Message) -> bool:
        """Tell every rank, this one too; whether rank 0 could be told."""
        if self._rank == 0:
            for connection in list(self._connections.values()):
                with suppress(OSError):
                    self._write(connection, message)
            self._receive(message)
            return True
        if self._closed or not self._connected.wait(SEND):
            return False
        try:
            self._write(self._connections[0], message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Say farewell and listen no longer: who goes now was not killed."""
        self._closed = True
        for connection in list(self._connections.values()):
            with suppress(OSError):
                self._write(connection, Message("bye", self._rank))

    def _write(self, connection: socket.socket, message: Message) -> None:
        with self._lock:
            connection.sendall(json.dumps(asdict(message)).encode() + b"\n")

    def _serve(self, server: socket.socket, token: str) -> None:
        """Rank 0: hear all others."""
        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        while not self._closed:
            for key, _ in selector.select(LOSS):
                if key.fileobj is server:
                    try:
                        connection = server.accept()[0]
                        _keep_alive(connection)
                    except OSError as error:  # no descriptors are left, say: who is not heard goes on without
                        print(f"no more connections for messages ({error})", flush=True)
                        selector.unregister(server)
                        continue
                    selector.register(connection, selectors.EVENT_READ, Caller())
                elif isinstance(key.fileobj, socket.socket) and not self._hear(key.fileobj, key.data, token):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
        server.close()

    def _hear(self, connection: socket.socket, caller: "Caller", token: str) -> bool:
        """Take in what a caller has sent; False when there will be no more of it."""
        try:
            received = connection.recv(65536)
        except OSError:
            received = b""
        if not received:
            if self._connections.pop(caller.rank, None) is not None:
                lost = Message("lost", caller.rank)
                timer = threading.Timer(LOSS, lambda: None if self._closed else self.send(lost))
                timer.daemon = True
                timer.start()
            return False
        *lines, caller.rest = (caller.rest + received).split(b"\n")
        for line in lines:
            if caller.rank < 0:
                given, rank = line.decode(errors="replace").split()[:2]
                if not secrets.compare_digest(given.encode(), token.encode()):
                    return False
                caller.rank = int(rank)
                self._connections[caller.rank] = connection
                if len(self._connections) == self._expected:
                    self._connected.set()
                continue
            message = Message(**json.loads(line))
            if message.kind == "bye":
                self._connections.pop(caller.rank, None)
            else:
                self.send(message)
        return True

    def _listen(self, address: tuple[str, int], token: str) -> None:
        """Other ranks: hear rank 0."""
        try:
            connection = socket.create_connection(address, CONNECT)
            connection.settimeout(None)
            _keep_alive(connection)
            connection.sendall(f"{token} {self._rank}\n".encode())
        except OSError as error:
            print(f"no connection to rank 0 at {address[0]}:{address[1]} for messages ({error})", flush=True)
            return
        self._connections[0] = connection
        self._connected.set()
        with suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                message = Message(**json.loads(line))
                if message.kind == "bye":
                    self._closed = True
                else:
                    self._receive(message)
        if not self._closed:
            time.sleep(LOSS)
            self._receive(Message("lost", 0))


@dataclass
class Caller:
    """A connection to rank 0: which rank it is of, and the beginning of its next line."""

    rank: int = -1
    rest: bytes = b""


def _keep_alive(connection: socket.socket) -> None:
    """Have the kernel look after a connection that is silent for days, so that nothing between the nodes drops it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
