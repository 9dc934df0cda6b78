"""Carries bytes between TVM's client and a device until a deadline; run as a program by `enet_tvm.rpc.relay.Relay`.

It is a process of its own because TVM's bindings hold Python's global lock in some of the calls that wait for the device:
no thread of the client's process could end them. Started by its path, with nothing but Python's standard library.

Arguments: file descriptors of the listening socket, of the device's connection and of the control connection, and the key
that the client must show. Over the control connection comes a line with the seconds that are left from now on (0 for no
limit); ``expired`` goes back when they are over. When any of the three connections ends, this process does.
"""

from __future__ import annotations

import hmac
import select
import socket
import struct
import sys
import time

_RPC_MAGIC = 0xFF271  # as in enet_tvm.rpc.wire, which is not imported here
_CHUNK = 1 << 20
_CONNECT_SECONDS = 15.0
_MOST_STRANGERS = 16


class _Limit:
    """The time that is left, as set over the control connection."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self._deadline: float | None = None

    def pause(self) -> float | None:
        """Return the seconds that are left; None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def read(self) -> None:
        """Take a new limit."""
        lines = self.control.recv(4096).decode("ascii").split("\n")
        if not lines[0]:
            raise ConnectionResetError
        seconds = float(lines[-2])
        self._deadline = time.monotonic() + seconds if seconds else None

    def check(self) -> None:
        """Report that the time is over, if it is, and end."""
        if self.pause() == 0:
            self.control.sendall(b"expired")
            raise TimeoutError


class _Pipe:
    """One direction of the relay: reads only what the other side has room for."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self._pending = memoryview(b"")

    @property
    def waits_to_write(self) -> bool:
        return len(self._pending) > 0

    def read(self) -> bool:
        """Take what there is and send what the sink takes; False at the end of the stream."""
        data = self.source.recv(_CHUNK)
        self._pending = memoryview(data)
        if data:
            self.write()
        return bool(data)

    def write(self) -> None:
        try:
            self._pending = self._pending[self.sink.send(self._pending) :]
        except BlockingIOError:
            return


def _accept(listener: socket.socket, limit: _Limit, key: str) -> socket.socket:
    """Return the connection of the one client that knows the key; those that say something else, or nothing, delay nobody."""
    shown = f"client:{key}".encode()
    wanted = struct.pack("<ii", _RPC_MAGIC, len(shown)) + shown
    deadline = time.monotonic() + _CONNECT_SECONDS
    said: dict[socket.socket, bytes] = {}
    listener.setblocking(False)
    while (pause := deadline - time.monotonic()) > 0:
        left = limit.pause()
        readable, _, _ = select.select([listener, limit.control, *said], [], [], pause if left is None else min(pause, left))
        if limit.control in readable:
            limit.read()
        limit.check()
        if listener in readable:
            client, _ = listener.accept()
            client.setblocking(False)
            said[client] = b""
            if len(said) > _MOST_STRANGERS:
                oldest = next(iter(said))
                del said[oldest]
                oldest.close()
        for client in [client for client in said if client in readable]:
            try:
                part = client.recv(len(wanted) - len(said[client]))
            except OSError:
                part = b""
            said[client] += part
            if hmac.compare_digest(said[client], wanted):
                for stranger in said.keys() - {client}:
                    stranger.close()
                name = b"server:relay"
                client.sendall(struct.pack("<ii", _RPC_MAGIC, len(name)) + name)
                listener.close()
                return client
            if not part or len(said[client]) == len(wanted):
                del said[client]
                client.close()
    raise TimeoutError


def _carry(client: socket.socket, device: socket.socket, limit: _Limit) -> None:
    for connection in (client, device):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pipes = [_Pipe(client, device), _Pipe(device, client)]
    while True:
        readers: list[socket.socket] = [limit.control, *(pipe.source for pipe in pipes if not pipe.waits_to_write)]
        writers = [pipe.sink for pipe in pipes if pipe.waits_to_write]
        readable, writable, _ = select.select(readers, writers, [], limit.pause())
        for pipe in pipes:
            if pipe.source in readable and not pipe.read():
                return
            if pipe.sink in writable:
                pipe.write()
        if limit.control in readable:
            limit.read()
        limit.check()


def _main() -> None:
    *numbers, key = sys.argv[1:]
    listener, device, control = (socket.socket(fileno=int(number)) for number in numbers)
    try:
        limit = _Limit(control)
        _carry(_accept(listener, limit, key), device, limit)
    except OSError:
        return  # either side is gone, and so are we


if __name__ == "__main__":
    _main()
