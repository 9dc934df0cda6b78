"""Greetings of a server's new clients, read side by side, so that no silent client keeps the next one waiting.

Every greeting has one deadline for the whole of it, however its bytes drip in. There is room for so many at a time; when it
is full, whoever has been silent for longest makes room.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enet_tvm.rpc.messages import ProtocolError
from enet_tvm.rpc.wire import RPC_MAGIC, decode

GREETING_SECONDS = 3.0
MOST_GREETINGS = 32
LONGEST_GREETING = 4096
"""Longest text of a client's key and options, in bytes."""

_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_HEAD = struct.Struct("<ii")


@dataclass(eq=False)
class Greeting:
    """A connection whose client has yet to say what it wants; no byte after its greeting is read."""

    connection: socket.socket
    peer: str
    deadline: float
    _received: bytearray = field(default_factory=bytearray)
    _wanted: int = _HEAD.size

    @property
    def silent(self) -> bool:
        """Whether nothing has come yet."""
        return not self._received

    def read(self) -> str | None:
        """Return the greeting's text once it is complete, else None.

        Raises
        ------
        OSError
            When the connection ends, or this is no greeting (`ProtocolError`).
        """
        while len(self._received) < self._wanted:
            try:
                part = self.connection.recv(self._wanted - len(self._received))
            except BlockingIOError:
                return None
            if not part:
                raise ConnectionResetError("it left")
            self._received += part
            if len(self._received) == self._wanted == _HEAD.size:
                magic, size = _HEAD.unpack(self._received)
                if magic != RPC_MAGIC or not 0 <= size <= LONGEST_GREETING:
                    raise ProtocolError("it is no RPC client")
                self._wanted += size
        return decode(bytes(self._received[_HEAD.size :]))


class Greetings:
    """Accepts connections and reads what each says first.

    Parameters
    ----------
    listener : socket
        Socket that listens; made non-blocking.
    """

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._open: list[Greeting] = []
        """Connections whose greeting is not complete, oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def sockets(self) -> list[socket.socket]:
        """Sockets to wait for: the listener and the connections whose greeting is not complete."""
        return [self._listener, *(greeting.connection for greeting in self._open)]

    @property
    def deadline(self) -> float:
        """Earliest deadline of the open greetings, on the monotonic clock; infinity if there is none."""
        return min((greeting.deadline for greeting in self._open), default=float("inf"))

    def arrivals(self) -> Iterator[tuple[Greeting, str]]:
        """Yield each client that has said its greeting, and what it said; its connection is the caller's from then on."""
        # Before any is dropped for a newcomer, and again for the newcomers.
        yield from self._complete()
        self._accept()
        yield from self._complete()

    def _complete(self) -> Iterator[tuple[Greeting, str]]:
        now = time.monotonic()
        for greeting in list(self._open):
            try:
                text = greeting.read()
            except OSError:
                self._drop(greeting)
                continue
            if text is not None:
                self._open.remove(greeting)
                yield greeting, text
            elif now >= greeting.deadline:
                self._drop(greeting)

    def _accept(self) -> None:
        # So few that none of them is dropped before it has been read.
        for _ in range(MOST_GREETINGS // 2):
            try:
                connection, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    continue  # that one is gone already
                if not self._open:
                    time.sleep(0.05)  # it stays in the queue, and would be tried again at once
                    return
                self._make_room()
                continue
            connection.setblocking(False)
            if len(self._open) >= MOST_GREETINGS:
                self._make_room()
            self._open.append(Greeting(connection, f"{peer[0]}:{peer[1]}", time.monotonic() + GREETING_SECONDS))

    def _make_room(self) -> None:
        self._drop(next((greeting for greeting in self._open if greeting.silent), self._open[0]))

    def _drop(self, greeting: Greeting) -> None:
        self._open.remove(greeting)
        greeting.connection.close()

    def close(self) -> None:
        """Stop listening and drop whoever is at the door."""
        for greeting in self._open:
            greeting.connection.close()
        self._open.clear()
        self._listener.close()


def wait_readable(connections: Iterable[socket.socket], seconds: float) -> set[socket.socket]:
    """Wait at most so many seconds, and return those of the connections that can be read or have ended."""
    poll = select.poll()  # select() knows no descriptor above 1023
    by_number = {}
    for connection in connections:
        by_number[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
    return {by_number[number] for number, _ in poll.poll(1000 * seconds)}


def reply(connection: socket.socket, data: bytes) -> bool:
    """Send a few bytes on a new connection, which has room for them; return whether it could be done at once."""
    with contextlib.suppress(OSError):
        return connection.send(data) == len(data)
    return False
