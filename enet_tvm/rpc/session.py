"""A session on a device, for the host: TVM's own one, in which every call has an end and every failure a sentence."""

from __future__ import annotations

import contextlib
import gc
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.devices import claim_device
from enet_tvm.rpc.messages import parse_facts
from enet_tvm.rpc.relay import Relay
from enet_tvm.rpc.session_process import BIND_CORES, CONFIGURE_THREADS, FACTS
from enet_tvm.runtime import forking
from enet_tvm.text import printable

_UPLOAD_BYTES_PER_SECOND = 100e3
"""Rate in bytes a second, slower than any usable network, by which the size of an upload bounds its time."""

_SIGNALS = {
    "SIGILL": "the processor does not know an instruction of the code: it was compiled for a newer processor than the device's",
    "SIGSEGV": "it read or wrote memory that is not its own",
    "SIGBUS": "memory or a file was not there when it was needed; is the disk full?",
    "SIGKILL": "it was killed, perhaps because the device has no memory left",
    "SIGFPE": "the processor refused an arithmetic operation",
    "SIGABRT": "it gave up by itself",
}


class DeviceSession:
    """A device, claimed: use it in a ``with`` block, or `close` it.

    Make one with `open_session`.

    Attributes
    ----------
    remote : tvm.rpc.RPCSession
        TVM's session. Calls on it belong into a block of `within`.
    name : str
        Key and address of the device, for people.
    seconds : float
        Seconds after which the device ends the session.
    """

    def __init__(self, relay: Relay, remote: Any, name: str, seconds: float) -> None:
        self._relay = relay
        self.remote = remote
        self.name = name
        self.seconds = seconds
        self._start = time.monotonic()
        self._lost = False
        self._uploaded: set[str] = set()
        forking.follow(self)

    def after_fork(self) -> None:
        """Leave the device, in a forked process, to the parent."""
        # TVM's session may be locked for ever, by a thread that was in a call.
        forking.leak(self.remote)
        self.remote = None
        self._lost = True

    @contextlib.contextmanager
    def within(self, seconds: float, doing: str) -> Iterator[None]:
        """Bound a block of calls, and turn what goes wrong in it into a sentence.

        Parameters
        ----------
        seconds : float
            Seconds after which the connection is closed, which ends the block.
        doing : str
            Phrase for what the block does, as in "lost while *loading the library*".

        Raises
        ------
        UserError
            When the device dies, does not answer in time, or refuses. The session cannot be used then unless it refused.
            Also in a process that was forked since the session was opened.
        """
        if self._relay.inherited:
            raise UserError(
                f"{self.name} is used by the process that this one was forked from, and serves one at a time; "
                "open a session in the process that uses it"
            )
        self._relay.set_limit(seconds)
        try:
            yield
        except (RuntimeError, OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
            raise self._explain(error, doing, seconds if self._relay.expired else None) from error
        finally:
            self._relay.set_limit(None)

    def _explain(self, error: Exception, doing: str, expired_after: float | None) -> UserError:
        said = str(error)
        age, lost = time.monotonic() - self._start, self._relay.ended
        if expired_after is not None:
            self._lost = True
            return UserError(
                f"{self.name} was not done with {doing} after {expired_after:.3g} s and was given up; is it overloaded or off? "
                "Try again when it is idle"
            )
        if match := re.search(r"died of (SIG\w+)", said):
            self._lost = True
            why = _SIGNALS.get(match[1], "see the server's log")
            return UserError(f"{self.name} crashed while {doing}: {match[1]}, {why}; the device is free again")
        if "SessionTimeout" in said or "session has expired" in said or (lost and age >= self.seconds):
            self._lost = True
            return UserError(
                f"the session of {self.seconds:g} s on {self.name} was over before {doing} was done; "
                "let its server allow longer ones, with --session-seconds"
            )
        if lost:
            self._lost = True
            return UserError(
                f"{self.name} was lost while {doing}: its session or its server was killed, or it went off or out of reach; "
                "try again when it is back (see 'enet-tvm device list')"
            )
        if match := re.search(r"cannot store .*? on the device: ([^\n]*)", said):
            return UserError(f"{self.name} cannot store what was sent to it ({_first_line(match[1])}); make room on its disk")
        return UserError(f"{self.name} failed in {doing}: {_first_line(said)}")

    def upload(self, file: str | Path, name: str | None = None, timeout: float | None = None) -> str:
        """Send a file, and make sure that it arrived whole.

        Parameters
        ----------
        file : str or Path
            File to send.
        name : str, optional
            Name of the file on the device; by default the same. A name that was used in this session is never used again: a
            library that is loaded must not be overwritten, and another of its name would be taken for it.
        timeout : float, optional
            Seconds after which to give up; by default 10 and the time that a slow network takes.

        Returns
        -------
        str
            Name of the file on the device.

        Raises
        ------
        UserError
            When the device has no room, or is lost.
        """
        file = Path(file)
        content = file.read_bytes()
        name = self._unused(name or file.name)
        seconds = timeout or 10 + 2 * len(content) / _UPLOAD_BYTES_PER_SECOND
        with self.within(seconds, f"receiving {file.name} ({len(content) / 1e6:.1f} MB)"):
            self.remote.upload(bytearray(content), name)
            # A server of TVM's does not say when its disk is full.
            whole = bytes(self.remote.download(name)) == content
        if not whole:
            raise UserError(f"{self.name} did not store the whole of {file.name}; make room on its disk")
        self._uploaded.add(name)
        return name

    def _unused(self, name: str) -> str:
        path, number = PurePosixPath(name), 1
        while name in self._uploaded:
            number += 1
            name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        return name

    def load_module(self, name: str, timeout: float = 60.0) -> Any:
        """Load an uploaded library; returns a ``tvm.runtime.Module`` on the device."""
        with self.within(timeout, f"loading {name}"):
            return self.remote.load_module(name)

    def find(self, name: str) -> Any:
        """Return a function of the device's by its name; None where its server has no such function.

        To be called in a block of `within`, as the function is.
        """
        try:
            return self.remote.get_function(name)
        except (AttributeError, ValueError):
            return None

    def facts(self) -> dict[str, Any]:
        """Return what the device says of itself (`enet_tvm.rpc.session_process.device_facts`); empty for a server of TVM's."""
        with self.within(15, "telling what it is"):
            function = self.find(FACTS)
            return {} if function is None else parse_facts(str(function()))

    def bind_cores(self, cores: Collection[int], threads: int | None = None) -> str:
        """Let this session run on processors of the device that a target names, if they are there and are not too few.

        To be called before `set_threads`.

        Parameters
        ----------
        cores : collection of int
            Numbers of the processors.
        threads : int or None
            Number of threads that will be asked for; None for the default.

        Returns
        -------
        str
            Processors that it is bound to, or why it is not; see `enet_tvm.machine.CoreChoice`.
        """
        with self.within(15, "choosing its cores"):
            if (bind := self.find(BIND_CORES)) is None:
                return "all processors: its server binds to none"
            return printable(str(bind(threads or 0, ",".join(map(str, sorted(cores))))), 300)

    def set_threads(self, threads: int) -> int:
        """Let kernels of this session run on so many threads, at most as many as the device has processors.

        Returns
        -------
        int
            Number of threads that they do run on.
        """
        with self.within(15, "making its threads"):
            if (configure := self.find(CONFIGURE_THREADS)) is not None:
                return int(configure(threads))
            # A server of TVM's; -3 lets every thread run on every processor.
            self.remote.get_function("runtime.config_threadpool")(-3, threads)
            return int(self.remote.get_function("runtime.NumThreads")())

    def close(self) -> None:
        """Give the device back; what lives on it (modules, arrays) must not be used any more."""
        if self.remote is not None and not self._lost:
            # Its end is told to the device as soon as nothing refers to it any more.
            self._relay.set_limit(5)
            with contextlib.suppress(Exception):
                self.remote = None
                gc.collect()
        self._relay.close()
        self.remote = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_session(tracker: Address, key: str, *, wait: float = 30.0, session_seconds: float = 600.0) -> DeviceSession:
    """Get a device from a tracker.

    Parameters
    ----------
    tracker : Address
        Address of the tracker.
    key : str
        Name of the kind of device.
    wait : float
        Seconds to wait for one that is free.
    session_seconds : float
        Seconds after which the device ends the session, and this side too.

    Raises
    ------
    UserError
        When there is no tracker, no such device, or none that is free or answers in time.
    """
    from tvm import rpc

    connection, address = claim_device(tracker, key, wait=wait, session_seconds=session_seconds)
    relay = Relay(connection)
    session = DeviceSession(relay, None, f"{key} at {address}", session_seconds)
    try:
        with session.within(15, "opening a session"), forking.not_while_forking():
            session.remote = rpc.connect("127.0.0.1", relay.port, relay.key)
    except BaseException:
        session.close()
        raise
    return session


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Traceback", "File ", "Stack trace", "0:", "1:"))]
    return printable((lines or ["no reason given"])[-1], 300)


__all__ = ["DeviceSession", "open_session"]
