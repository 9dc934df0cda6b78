"""The wire protocol between client, tracker and server, as TVM's own ``tvm.rpc`` speaks it.

Only Python's standard library, so that it can be used on a board.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from typing import Any

from enet_tvm.rpc.address import Address
from enet_tvm.rpc.messages import ProtocolError, parse_json

RPC_MAGIC = 0xFF271
"""First word of a session, and the server's answer when it accepts."""
RPC_MISMATCH = RPC_MAGIC + 2
"""The server's answer to a key that is not the one it waits for."""
TRACKER_MAGIC = 0x2F271

MAX_MESSAGE = 1 << 20
"""Longest message from a tracker in bytes, as in TVM's own."""


def receive(connection: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """Return exactly `size` bytes.

    Parameters
    ----------
    deadline : float or None
        Time of ``time.monotonic()`` at which to give up, in seconds; None leaves it to the connection's own timeout, which each
        packet begins anew.

    Raises
    ------
    OSError
        When the connection ends first, or the time is up (`TimeoutError`).
    """
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            connection.settimeout(_remaining(deadline))
        if not (part := connection.recv(min(size - len(data), 1 << 16))):
            raise ConnectionResetError("the other side closed the connection")
        data += part
    return bytes(data)


def receive_int(connection: socket.socket, deadline: float | None = None) -> int:
    """Return a 32-bit integer, little endian."""
    (value,) = struct.unpack("<i", receive(connection, 4, deadline))
    return int(value)


def receive_text(connection: socket.socket, limit: int = MAX_MESSAGE, deadline: float | None = None) -> str:
    """Return a text with its length before it.

    Raises
    ------
    OSError
        When it is longer than `limit`, not UTF-8, or does not come.
    """
    size = receive_int(connection, deadline)
    if not 0 <= size <= limit:
        raise ProtocolError(f"a message of {size} bytes was announced")
    return decode(receive(connection, size, deadline))


def receive_json(connection: socket.socket, deadline: float | None = None) -> Any:
    """Return a JSON value with its length before it; OSError as for `receive_text`, also when it is not JSON."""
    return parse_json(receive_text(connection, deadline=deadline))


def decode(data: bytes) -> str:
    """Return a message's text.

    Raises
    ------
    ProtocolError
        When it is none.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("a message is not text") from error


def pack_text(text: str) -> bytes:
    """Return a text as it is sent, with its length before it."""
    data = text.encode("utf-8")
    return struct.pack("<i", len(data)) + data


def pack_int(value: int) -> bytes:
    """Return a 32-bit integer as it is sent."""
    return struct.pack("<i", value)


def keep_alive(connection: socket.socket, seconds: int) -> None:
    """Let the system end a connection whose other side has been silent for about so long: a board without power."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": max(1, seconds // 2), "TCP_KEEPINTVL": max(1, seconds // 6), "TCP_KEEPCNT": 3}
    # Linux: also data on its way that nobody acknowledges.
    settings["TCP_USER_TIMEOUT"] = 1000 * seconds
    for name, value in settings.items():
        # Not every system, nor every emulator, has all of them.
        with contextlib.suppress(OSError, AttributeError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class TrackerConnection:
    """A connection to a tracker; every call is bounded.

    Parameters
    ----------
    address : Address
        Address of the tracker.
    timeout : float
        Seconds for the connection, and for each answer unless a call says otherwise.

    Raises
    ------
    OSError
        When there is no tracker, or something else answers.
    """

    def __init__(self, address: Address, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self.socket = socket.create_connection(address, timeout)
        try:
            keep_alive(self.socket, 20)
            self.socket.sendall(pack_int(TRACKER_MAGIC))
            if receive_int(self.socket, time.monotonic() + timeout) != TRACKER_MAGIC:
                raise ProtocolError("it is not a tracker")
        except BaseException:
            self.socket.close()
            raise

    def ask(self, *message: Any, timeout: float | None = None) -> Any:
        """Send a message and return the answer.

        Raises
        ------
        OSError
            When the connection is lost, or no answer comes in time (`TimeoutError`).
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        self.socket.settimeout(self._timeout)
        self.socket.sendall(pack_text(json.dumps(message)))
        return receive_json(self.socket, deadline)

    def close(self) -> None:
        """Close the connection; a request that waits is taken back by that."""
        self.socket.close()

    def __enter__(self) -> TrackerConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining
