"""The server on a device: offers it at a tracker, and gives each client a process of its own.

Runs with TVM's runtime alone: ``python -m enet_tvm.rpc.server`` imports neither a compiler nor anything that is not in
Python's standard library and ``tvm_ffi``. One thread; everything that it waits for has an end.

RPC is remote execution of code: whoever can connect can run anything as the user that the server runs as.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import DEFAULT_SERVER_PORT, Address, parse_address, parse_host
from enet_tvm.rpc.greetings import Greeting, Greetings, reply, wait_readable
from enet_tvm.rpc.messages import LONGEST_KEY, TrackerCode, expect_success, parse_greeting, parse_pending
from enet_tvm.rpc.session_folder import SessionFolder, remove_leftovers
from enet_tvm.rpc.wire import RPC_MAGIC, RPC_MISMATCH, TrackerConnection, keep_alive, pack_int, pack_text
from enet_tvm.text import printable

WARNING = "whoever can connect can run any code as this user: serve only on a network that you trust"
"""Warning that the command line prints whenever a server starts."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PORTS = 100
"""Number of ports that are tried, from the first on."""
_BACKLOG = 128
_LONGEST_LINE = 16
"""Number of clients that may wait for the end of a session where there is no tracker to wait at."""
_PING_SECONDS = 2.0
_TRACKER_SECONDS = 3.0
"""Longest exchange with a tracker in seconds: the server does nothing else meanwhile."""
_UNCLAIMED_SECONDS = 6.0
"""Seconds after which a device that was promised to a client that never came is offered again."""
_FAREWELL_SECONDS = 2.0
"""Seconds for a session to end by itself after its client has left."""
_SILENCE_SECONDS = 30
"""Seconds of silence after which a client that has lost its network is given up, between two calls."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a device's server.

    Attributes
    ----------
    key : str
        Name of the kind of device at the tracker.
    tracker : Address or None
        Tracker to offer the device at; None to be reached by address and key alone.
    host, port : str, int
        Host and port to listen on: the first free port of 100 from `port` on; 0 for any.
    session_seconds : float
        Seconds after which a session is ended even if its client asked for more time.
    folder : Path or None
        Folder under which uploads are kept while a session lasts; None for the system's temporary folder.
    custom_addr : str or None
        Host by which clients reach this device, where the tracker sees another; None for what the tracker sees.
    """

    key: str
    tracker: Address | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_SERVER_PORT
    session_seconds: float = 3600.0
    folder: Path | None = None
    custom_addr: str | None = None


@dataclass
class _Session:
    process: int
    connection: socket.socket
    folder: SessionFolder
    seconds: float
    start: float = field(default_factory=time.monotonic)
    left_since: float | None = None


class DeviceServer:
    """Serves one client after another until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : ServerSettings
        Settings of the server.
    session : callable
        Serves a client in the forked process: called with the connection, the session's folder and this process's number.
    log : callable
        Called with a line on each event.

    Raises
    ------
    UserError
        When it cannot listen.
    """

    def __init__(
        self,
        settings: ServerSettings,
        session: Callable[[socket.socket, Path, int], None],
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._run_session = session
        self._log = log
        listener = _listen(settings.host, settings.port)
        self.port: int = listener.getsockname()[1]
        self._greetings = Greetings(listener)
        self._line: deque[tuple[Greeting, float | None]] = deque()
        """Clients that wait for the end of the session, with the seconds that they want."""
        self._tracker: TrackerConnection | None = None
        self._tracker_due = 0.0
        self._tracker_since = 0.0
        self._tracker_missed = False
        self._match_key: str | None = None
        self._unclaimed_since: float | None = None
        self._session: _Session | None = None
        self._stopping = False

    def serve(self, ready: Callable[[int], None] = lambda _: None) -> None:
        """Serve until SIGTERM or SIGINT; afterwards there is no session, no connection and no folder left.

        Parameters
        ----------
        ready : callable
            Called with the port as soon as either signal ends the server in order.
        """
        wake_reader, wake_writer = socket.socketpair()
        for end in (wake_reader, wake_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # writes to the wake-up socket
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            ready(self.port)
            remove_leftovers(self._settings.folder)
            while not self._stopping:
                self._watch_session()
                self._keep_registered()  # after the session, which may have ended: then the device is offered at once
                self._serve_next_in_line()
                spoken = wait_readable(
                    [wake_reader, *([self._tracker.socket] if self._tracker else []), *self._greetings.sockets], self._pause()
                )
                if wake_reader in spoken:
                    with contextlib.suppress(BlockingIOError):
                        wake_reader.recv(4096)
                if self._tracker is not None and self._tracker.socket in spoken:
                    self._drop_tracker()  # it speaks only when asked: it hung up
                for greeting, text in self._greetings.arrivals():
                    self._answer(greeting, text)
        finally:
            self._end_session(None)
            self._drop_tracker()
            self._greetings.close()
            while self._line:
                self._line.popleft()[0].connection.close()
            signal.set_wakeup_fd(-1)
            wake_reader.close()
            wake_writer.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _pause(self) -> float:
        """Return the seconds until something must be looked at."""
        now = time.monotonic()
        ends = [60.0, self._greetings.deadline - now]
        if self._settings.tracker:
            ends.append(self._tracker_due - now)
        if self._session:
            ends += [1.0, self._session.start + self._session.seconds - now]
        return max(0.0, min(ends)) + 0.01

    # The tracker

    def _keep_registered(self) -> None:
        address = self._settings.tracker
        now = time.monotonic()
        if address is None:
            return
        # A device that has become free is offered at once.
        idle = self._tracker is not None and self._session is None and self._match_key is None
        if now < self._tracker_due and not idle:
            return
        try:
            self._speak_to_tracker(address, now + _TRACKER_SECONDS)
        except OSError as error:
            self._drop_tracker()
            if not self._tracker_missed:
                self._log(f"no tracker at {address} ({error}); trying again every {_PING_SECONDS:g} seconds")
            self._tracker_missed = True
        finally:
            self._tracker_due = time.monotonic() + _PING_SECONDS

    def _speak_to_tracker(self, address: Address, deadline: float) -> None:
        def left() -> float:
            return max(0.05, deadline - time.monotonic())

        host = self._settings.custom_addr
        new = self._tracker is None
        if self._tracker is None:
            self._tracker_since = time.monotonic()
            self._tracker = TrackerConnection(address, timeout=left())
            info = {"key": f"server:{self._settings.key}", "addr": [host, self.port]}
            expect_success(self._tracker.ask(TrackerCode.UPDATE_INFO, info, timeout=left()))
        pending = parse_pending(self._tracker.ask(TrackerCode.GET_PENDING_MATCHKEYS, timeout=left()))
        if self._session is None and self._must_offer(pending):
            key = f"{self._settings.key}:{random.SystemRandom().random()}"
            expect_success(self._tracker.ask(TrackerCode.PUT, self._settings.key, (self.port, key), host, timeout=left()))
            self._match_key, self._unclaimed_since = key, None
        if new:
            self._log(f"registered at tracker {address} as {self._settings.key}")
        self._tracker_missed = False

    def _must_offer(self, pending: Sequence[str]) -> bool:
        """Return whether the device must be offered anew, given the offers that nobody has taken."""
        if self._match_key is None:
            return True
        if self._match_key in pending:
            self._unclaimed_since = None
            return False
        now = time.monotonic()
        self._unclaimed_since = self._unclaimed_since or now
        if now - self._unclaimed_since < _UNCLAIMED_SECONDS:
            return False
        self._log("promised to a client that never came; offering the device again")
        return True

    def _drop_tracker(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
        self._tracker, self._match_key, self._unclaimed_since = None, None, None
        # At once, unless it hangs up whenever it is called.
        self._tracker_due = self._tracker_since + _PING_SECONDS

    # Sessions

    def _answer(self, greeting: Greeting, text: str) -> None:
        """Give a client the device if it is the one that waits for it; without a tracker, let it wait in line."""
        key, seconds = parse_greeting(text)
        alone = self._settings.tracker is None
        expected = self._settings.key if alone else self._match_key
        if key and key == expected and not self._stopping:
            if self._session is None and not self._line:
                self._welcome(greeting, seconds)
                return
            if alone and len(self._line) < _LONGEST_LINE:
                with contextlib.suppress(OSError):
                    keep_alive(greeting.connection, _SILENCE_SECONDS)
                self._line.append((greeting, seconds))
                return
        reply(greeting.connection, pack_int(RPC_MISMATCH))
        greeting.connection.close()

    def _serve_next_in_line(self) -> None:
        for waiting in list(self._line):
            if _left(waiting[0].connection):
                self._line.remove(waiting)
                waiting[0].connection.close()
        while self._line and self._session is None:
            self._welcome(*self._line.popleft())

    def _welcome(self, greeting: Greeting, seconds: float | None) -> None:
        if reply(greeting.connection, pack_int(RPC_MAGIC) + pack_text(f"server:{self._settings.key}")):
            longest = self._settings.session_seconds
            self._start_session(greeting.connection, greeting.peer, min(seconds or longest, longest))
        else:
            greeting.connection.close()

    def _start_session(self, connection: socket.socket, peer: str, seconds: float) -> None:
        self._match_key = None
        folder = None
        try:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(connection, _SILENCE_SECONDS)
            folder = SessionFolder(self._settings.folder)
            server = os.getpid()
            process = os.fork()
        except OSError as error:
            if folder is not None:
                folder.remove()
            why = f"the device cannot begin a session: {error.strerror or error}"
            self._log(why)
            _tell(connection, why)
            connection.close()
            return
        if process == 0:
            self._become_session(connection, folder, server)
        self._session = _Session(process, connection, folder, seconds)
        self._log(f"session of {peer}, for at most {seconds:g} s")

    def _become_session(self, connection: socket.socket, folder: SessionFolder, server: int) -> None:
        code = 1
        try:
            # What this process kept open would stay open when the server closes it.
            self._greetings.close()
            for greeting, _ in self._line:
                greeting.connection.close()
            if self._tracker is not None:
                self._tracker.close()
            folder.leave_to_parent()
            self._run_session(connection, folder.files, server)
            code = 0
        except BaseException as error:
            self._log(f"session failed: {error}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _watch_session(self) -> None:
        session = self._session
        if session is None:
            return
        process, status = os.waitpid(session.process, os.WNOHANG)
        if process == session.process:
            self._end_session(status)
        elif time.monotonic() - session.start >= session.seconds:
            self._log(f"session killed after its {session.seconds:g} s")
            self._end_session(None, f"RPCSessionTimeoutError: the session's {session.seconds:g} s are over")
        elif session.left_since is None:
            session.left_since = time.monotonic() if _left(session.connection) else None
        elif time.monotonic() - session.left_since >= _FAREWELL_SECONDS:
            self._log("session killed: its client had left in the middle of a call")
            self._end_session(None)

    def _end_session(self, status: int | None, message: str = "") -> None:
        """Clear up after a session, and kill what is left of it; `status` is how it ended by itself, if it did."""
        session, self._session = self._session, None
        if session is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session.process, signal.SIGKILL)
        if status is None:
            # Between fork and setsid there is no such group yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(session.process, signal.SIGKILL)
            os.waitpid(session.process, 0)
        elif os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            message = f"the session's process on the device died of {name}"
            self._log(f"session lost: {name}")
        else:
            self._log("session over")
        if message:
            _tell(session.connection, message)
        session.connection.close()
        session.folder.remove()


def _listen(host: str, port: int) -> socket.socket:
    trouble = ""
    for candidate in range(port, min(port + _PORTS, 65536)) if port else [0]:
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, candidate), family=family, backlog=_BACKLOG)
        except OSError as error:
            trouble = error.strerror or str(error)
            if error.errno != errno.EADDRINUSE:
                break
    raise UserError(f"cannot listen on {host} from port {port} on ({trouble}); choose another --host or --port")


def _left(connection: socket.socket) -> bool:
    """Return whether the other side has closed a connection, without reading what may still lie in it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def _tell(connection: socket.socket, message: str) -> None:
    """Tell a client that waits for an answer what became of it; never waits itself."""
    from enet_tvm.runtime.libraries import load_runtime

    with contextlib.suppress(Exception):
        connection.setblocking(False)
        load_runtime().get_global_func("rpc.ReturnException")(connection.fileno(), message)


def serve(settings: ServerSettings, log: Callable[[str], None], ready: Callable[[int], None] = lambda _: None) -> None:
    """Load TVM's runtime and serve this device until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : ServerSettings
        Settings of the server.
    log : callable
        Called with a line on each event.
    ready : callable
        Called with the port once it listens and a signal ends it in order.

    Raises
    ------
    UserError
        When the runtime cannot be loaded, or it cannot listen.
    """
    from enet_tvm.rpc.session_process import prepare, run_session

    key = settings.key
    if not key or not key.isprintable() or any(letter in " :" for letter in key) or len(key.encode()) > LONGEST_KEY:
        raise UserError(f"'{printable(key, 40)}' is no key; give a short name without blanks and colons, such as rpi4")
    if settings.folder is not None and not settings.folder.is_dir():
        raise UserError(f"there is no folder {settings.folder}; make it, or leave out --folder")
    if settings.tracker is not None and settings.host in _LOOPBACK and settings.tracker.host not in _LOOPBACK:
        log(f"listening on {settings.host} alone: clients on other machines cannot connect; give --host 0.0.0.0")
    try:
        prepare()
    except ImportError as error:
        raise UserError(f"this Python lacks what TVM's runtime needs ({error}); run: pip install {error.name}") from error
    server = DeviceServer(settings, run_session, log)
    server.serve(ready)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve this device: the entry of a board's bundle, ``python -m enet_tvm.rpc.server``."""
    parser = argparse.ArgumentParser(
        prog="python -m enet_tvm.rpc.server",
        description=f"Offer this device to clients over TVM's RPC. RPC is remote execution of code by design: {WARNING}.",
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="tracker to register at")
    parser.add_argument("--key", required=True, help="name of this kind of device, such as rpi4")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every network (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_SERVER_PORT, help="first port to try (default: %(default)s)")
    parser.add_argument(
        "--custom-addr", metavar="HOST", help="host by which clients reach this device, where the tracker sees another"
    )
    parser.add_argument(
        "--session-seconds",
        type=float,
        default=3600.0,
        help="longest session (default: %(default)s)",
    )
    parser.add_argument("--folder", type=Path, help="where uploads are kept during a session (default: the temporary folder)")
    given = parser.parse_args(arguments)

    def log(line: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)

    try:
        settings = ServerSettings(
            key=given.key,
            tracker=parse_address(given.tracker) if given.tracker else None,
            host=parse_host(given.host, "--host"),
            port=given.port,
            session_seconds=given.session_seconds,
            folder=given.folder,
            custom_addr=parse_host(given.custom_addr, "--custom-addr") if given.custom_addr else None,
        )
        log(WARNING)
        serve(settings, log, lambda port: log(f"serving {given.key} on {Address(settings.host, port)}"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
