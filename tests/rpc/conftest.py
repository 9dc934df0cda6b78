"""Real trackers and servers in processes of their own, which tests may kill."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from shared import made_once

from enet_tvm.device_bundle.building import build_program
from enet_tvm.device_bundle.wheels import runtime_files
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.devices import list_devices

TRACKER = """
from enet_tvm.rpc.tracker import run_tracker
run_tracker("{host}", {port}, lambda port: print("port", port, flush=True))
"""


class Program:
    """A process with its output in a file."""

    def __init__(self, command: list[str], log: Path, **options: Any) -> None:
        self.log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)
        self.pid = self.process.pid

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.text()):
                return found
            assert self.process.poll() is None, self.text()
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in: {self.text()}")

    def text(self) -> str:
        return self.log.read_text()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and return how the process ended."""
        self.process.send_signal(number)
        return self.process.wait(20)


class Server(Program):
    def session(self) -> psutil.Process:
        """The process of the session that is open."""
        (session,) = wait_until(lambda: psutil.Process(self.pid).children())
        return session


def wait_until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """Return what a condition becomes as soon as that is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)
    return value


class Farm:
    """Trackers and servers that end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs: list[Program] = []

    def _add(self, program: Any) -> Any:
        self._programs.append(program)
        return program

    def start_tracker(self, port: int = 0, host: str = "127.0.0.1") -> tuple[Program, Address]:
        log = self.folder / f"tracker-{len(self._programs)}.log"
        tracker = self._add(Program([sys.executable, "-c", TRACKER.format(host=host, port=port)], log))
        return tracker, Address(host, int(tracker.wait_for(r"port (\d+)")[1]))

    def start_server(
        self,
        tracker: Address,
        *options: str,
        key: str = "board",
        python: list[str] | None = None,
        program: Path | None = None,
        environment: dict[str, str] | None = None,
        largest_file: int | None = None,
    ) -> Server:
        """Start the server in Python, or the `program` in C, and wait until it is offered."""

        def limit() -> None:
            if largest_file is not None:
                # Python ignores the signal, what it starts does not.
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        uploads = self.folder / "uploads"
        uploads.mkdir(exist_ok=True)
        command = [str(program)] if program else [*(python or [sys.executable]), "-m", "enet_tvm.rpc.server"]
        command += ["--tracker", str(tracker), "--key", key, "--port", "0", *options]
        command += [] if program else ["--folder", str(uploads)]
        environment = environment or {**os.environ, "TMPDIR": str(uploads)}
        log = self.folder / f"server-{len(self._programs)}.log"
        server: Server = self._add(Server(command, log, env=environment, preexec_fn=limit))
        server.wait_for("registered (at|with the) tracker", 60)
        wait_until(lambda: list_devices(tracker).free.get(key))
        return server

    def end(self) -> None:
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.process.send_signal(signal.SIGCONT)
                program.kill()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.end()


@pytest.fixture(scope="session")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.end()


@pytest.fixture(scope="session")
def board(shared_farm: Farm) -> tuple[Address, Server]:
    """A tracker and a server with the key 'board', for tests that leave both alive."""
    _, address = shared_farm.start_tracker()
    return address, shared_farm.start_server(address)


@pytest.fixture(scope="session")
def enet_rpcd() -> Path:
    """The server in C, built for this machine."""

    def make(root: Path) -> None:
        libraries = runtime_files(architecture(), f"{sys.version_info.major}.{sys.version_info.minor}").libraries
        (root / "bin").mkdir(parents=True)
        (root / "lib").symlink_to(libraries)
        build_program("enet-rpcd", root / "lib", architecture(), root / "bin/enet-rpcd")

    return made_once("enet-rpcd", make) / "bin/enet-rpcd"


@dataclass(frozen=True)
class DeviceServer:
    """One of the two servers of a device, with a tracker of its own.

    Attributes
    ----------
    start : callable
        Starts another of the same kind, given a farm and its tracker.
    """

    kind: str
    tracker: Address
    server: Server
    start: Callable[..., Server]


@pytest.fixture(scope="session", params=["python", "c"])
def device_server(request: pytest.FixtureRequest, shared_farm: Farm) -> DeviceServer:
    """A server with the key 'board', in Python and in C in turn; tests leave it alive."""
    program = request.getfixturevalue("enet_rpcd") if request.param == "c" else None

    def start(farm: Farm, tracker: Address, *options: str, **settings: Any) -> Server:
        return farm.start_server(tracker, *options, program=program, **settings)

    _, tracker = shared_farm.start_tracker()
    return DeviceServer(request.param, tracker, start(shared_farm, tracker), start)


@pytest.fixture(scope="session")
def misbehaving_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with functions that never return, crash, or return 7."""
    from enet_tvm.compiler.linking import host_linker

    folder = tmp_path_factory.mktemp("library")
    source = folder / "bad.c"
    arguments = "(void *self, const void *arguments, int count, struct any *result)"
    source.write_text(
        "struct any { int type; int padding; long long value; };\n"
        f'int __tvm_ffi_spin{arguments} {{ for (;;) __asm__ volatile(""); }}\n'
        f'int __tvm_ffi_illegal{arguments} {{ __asm__ volatile(".byte 0x0f, 0x0b"); return 0; }}\n'
        f"int __tvm_ffi_seven{arguments} {{ result->type = 1; result->value = 7; return 0; }}\n"
        f"int __tvm_ffi_memory{arguments} {{ *(volatile int *)8 = 1; return 0; }}\n",
        encoding="utf-8",
    )
    library = folder / "bad.so"
    host_linker()(library, [str(source)])
    return library


@pytest.fixture
def later() -> Iterator[Callable[[float, int, int], None]]:
    """Sends a signal to a process after some seconds, from another process: a call that waits may hold Python's lock."""
    started: list[subprocess.Popen[bytes]] = []

    def send(seconds: float, number: int, process: int) -> None:
        started.append(subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -{int(number)} {process}"]))

    yield send
    for process in started:
        process.wait()


@contextlib.contextmanager
def fails(*words: str, within: float) -> Iterator[None]:
    """Expect one sentence with these words, in time."""
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        yield
    took = time.monotonic() - start
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert "Traceback" not in message
    assert took < within, f"it took {took:.1f} s"


def relays() -> list[psutil.Process]:
    """The relays of this process that are still alive."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if any("relay_process" in part for part in child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(name="relays")
def relays_fixture() -> Callable[[], list[psutil.Process]]:
    return relays


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    return wait_until
