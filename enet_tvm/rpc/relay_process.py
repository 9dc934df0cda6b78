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


class _Pipe:
    """One direction: reads only what the other side has room for."""

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


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := connection.recv(size - len(data))):
            raise ConnectionResetError
        data += part
    return data


def _accept(listener: socket.socket, key: str) -> socket.socket:
    """Return the connection of the one client that knows the key."""
    listener.settimeout(_CONNECT_SECONDS)
    while True:
        client, _ = listener.accept()
        client.settimeout(5)
        try:
            magic, size = struct.unpack("<ii", _receive(client, 8))
            if (
                magic == _RPC_MAGIC
                and 0 <= size < 4096
                and hmac.compare_digest(_receive(client, size), f"client:{key}".encode())
            ):
                name = b"server:relay"
                client.sendall(struct.pack("<ii", _RPC_MAGIC, len(name)) + name)
                listener.close()
                return client
        except OSError:
            pass
        client.close()


def _carry(client: socket.socket, device: socket.socket, control: socket.socket) -> None:
    for connection in (client, device):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pipes = [_Pipe(client, device), _Pipe(device, client)]
    deadline: float | None = None
    while True:
        readers: list[socket.socket] = [control, *(pipe.source for pipe in pipes if not pipe.waits_to_write)]
        writers = [pipe.sink for pipe in pipes if pipe.waits_to_write]
        pause = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, writable, _ = select.select(readers, writers, [], pause)
        for pipe in pipes:
            if pipe.source in readable and not pipe.read():
                return
            if pipe.sink in writable:
                pipe.write()
        if control in readable:
            lines = control.recv(4096).decode("ascii").split("\n")
            if not lines[0]:
                return
            seconds = float(lines[-2])
            deadline = time.monotonic() + seconds if seconds else None
        if deadline is not None and time.monotonic() >= deadline:
            control.sendall(b"expired")
            return


def _main() -> None:
    *numbers, key = sys.argv[1:]
    listener, device, control = (socket.socket(fileno=int(number)) for number in numbers)
    try:
        _carry(_accept(listener, key), device, control)
    except OSError:
        return  # either side is gone, and so are we


if __name__ == "__main__":
    _main()
