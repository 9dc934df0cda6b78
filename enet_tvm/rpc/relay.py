"""A connection to a device that can be ended from this side, whatever the device does.

TVM's client waits without an end, inside C++, for a device that does not answer. So it is not connected to the device but to
a port of this machine's own loopback, and a process of its own carries the bytes on until a deadline.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from enet_tvm.rpc import relay_process
from enet_tvm.rpc.wire import RPC_MAGIC, RPC_MISMATCH, Address, keep_alive, pack_int, pack_text, receive_int, receive_text
from enet_tvm.runtime import forking

_SILENCE_SECONDS = 20
"""Seconds of silence after which a device without power or network is given up, also in the middle of a call."""


class HandshakeError(ConnectionError):
    """The server waits for another client: somebody else got the device, or it was started anew."""


def shake_hands(address: Address, key: str, timeout: float) -> socket.socket:
    """Connect to a device's server and show it the key.

    Raises
    ------
    OSError
        When it does not answer in time, or refuses (`HandshakeError`).
    """
    deadline = time.monotonic() + timeout
    connection = socket.create_connection(address, timeout)
    try:
        connection.sendall(pack_int(RPC_MAGIC) + pack_text(f"client:{key}"))
        answer = receive_int(connection, deadline)
        if answer == RPC_MISMATCH:
            raise HandshakeError("it is serving somebody else")
        if answer != RPC_MAGIC:
            raise ConnectionError("it is not an RPC server")
        receive_text(connection, limit=4096, deadline=deadline)
        connection.settimeout(None)
        keep_alive(connection, _SILENCE_SECONDS)
    except BaseException:
        connection.close()
        raise
    return connection


class Relay:
    """Lets TVM's client speak to a device, within deadlines.

    Parameters
    ----------
    device : socket
        Connection to the device after the handshake; the relay takes it over.

    Attributes
    ----------
    port : int
        Port on 127.0.0.1 that TVM's client is to connect to, once.
    key : str
        Key that the client is to show there: no other process knows it.
    """

    def __init__(self, device: socket.socket) -> None:
        self.key = secrets.token_hex(16)
        self._control, control = socket.socketpair()
        self._inherited = False
        forking.follow(self)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.port: int = listener.getsockname()[1]
            passed = [end.fileno() for end in (listener, device, control)]
            with device, control:
                # -I: nothing of the user's environment or folder gets in; -S: it starts in a twentieth of a second.
                command = [sys.executable, "-I", "-S", str(Path(relay_process.__file__)), *map(str, passed), self.key]
                self._process = subprocess.Popen(
                    command,
                    pass_fds=passed,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Ctrl-C is for the client, which then closes the relay.
                    start_new_session=True,
                )

    def after_fork(self) -> None:
        """Cut a forked process off from the connection, which stays whole in its parent."""
        self._inherited = True
        self._control.close()
        nowhere, other = socket.socketpair()
        with nowhere, other:
            for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                    if connection.family == socket.AF_INET and connection.getpeername() == ("127.0.0.1", self.port):
                        # TVM's client owns this number, and would say farewell to the device over it.
                        os.dup2(nowhere.fileno(), number, inheritable=False)

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that the relay serves."""
        return self._inherited

    def set_limit(self, seconds: float | None) -> None:
        """Close the connection so many seconds from now, unless another limit comes first; None takes the limit away."""
        with contextlib.suppress(OSError):
            self._control.sendall(f"{0 if seconds is None else max(seconds, 1e-3):f}\n".encode("ascii"))

    @property
    def expired(self) -> bool:
        """Whether the connection was closed because of the limit."""
        with contextlib.suppress(OSError):
            if select.select([self._control], [], [], 0)[0]:
                return self._control.recv(16, socket.MSG_PEEK) == b"expired"
        return False

    @property
    def ended(self) -> bool:
        """Whether the connection has ended, from whichever side."""
        try:
            # What the client notices first is the relay's own end, of which the system tells a moment later.
            self._process.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End the connection; a call that waits for the device fails. In a forked process there is none to end."""
        if self._inherited:
            return
        self._control.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
