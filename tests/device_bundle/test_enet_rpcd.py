"""The C server against TVM's own tracker and client: what it serves, and what it survives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enet_tvm.device_bundle.building import compile_c
from enet_tvm.machine import architecture, cpu_features

pytestmark = pytest.mark.timeout(120)

MISBEHAVIOUR = """
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <tvm/ffi/c_api.h>
#define FUNCTION(name, body) \\
  int __tvm_ffi_##name(void* self, const TVMFFIAny* given, int32_t count, TVMFFIAny* result) { \\
    (void)self, (void)given, (void)count; \\
    result->type_index = kTVMFFIInt; \\
    result->v_int64 = getpid(); \\
    body; \\
    return 0; \\
  }
FUNCTION(process, (void)0)
FUNCTION(crash, raise(SIGSEGV))
FUNCTION(hang, for (;;) pause())
FUNCTION(leave_child, if ((result->v_int64 = fork()) == 0) for (;;) pause())
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition}")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Tracker:
    """TVM's own tracker, in a process of its own that is forked from one that has imported TVM already."""

    CODE = """if True:
        import os, signal, socket, sys
        from tvm.rpc import tracker
        for line in sys.stdin:
            if line == "start\\n":
                if (child := os.fork()) == 0:
                    listener = socket.socket()
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind(("127.0.0.1", int(sys.argv[1])))
                    listener.listen(16)
                    tracker._tracker_server(listener, None)
            else:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            print("done", flush=True)
    """

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", self.CODE, str(self.port)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )

    def _tell(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        assert self.process.stdout.readline() == "done\n"

    def start(self) -> None:
        self._tell("start")

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_until(answers)

    def stop(self) -> None:
        self._tell("stop")

    def close(self) -> None:
        self.stop()
        self.process.kill()
        self.process.communicate()

    def client(self) -> Any:
        from tvm import rpc

        return rpc.connect_tracker("127.0.0.1", self.port)

    def free(self, key: str) -> int:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            # TVM's client waits 5 seconds before it tries a second time.
            queue = self.client().summary()["queue_info"]
            return int(queue.get(key, {"free": 0})["free"])
        return 0


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    said: list[str]
    folder: Path

    def sessions(self) -> list[Path]:
        return list(self.folder.iterdir())

    def tells(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.said)


@pytest.fixture(scope="module")
def tracker() -> Iterator[Tracker]:
    tracker = Tracker()
    tracker.start()
    yield tracker
    tracker.close()


@pytest.fixture(scope="module")
def misbehaviour(board: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tvm_ffi

    folder = tmp_path_factory.mktemp("library")
    (folder / "code.c").write_text(MISBEHAVIOUR)
    headers = f"-I{Path(tvm_ffi.__file__).parent / 'include'}"
    output = folder / "misbehaviour.so"
    compile_c(architecture(), headers, "-D_GNU_SOURCE", "-shared", "-fPIC", str(folder / "code.c"), "-o", str(output))
    return output


@pytest.fixture
def serve(board: Any, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts the server; whatever is left of it afterwards is killed."""
    servers: list[Server] = []

    def start(
        *options: object, key: str = "board", limit: int | None = None, ready: bool = True, folder: Path | None = None
    ) -> Server:
        folder = folder or tmp_path / f"sessions-{len(servers)}"
        folder.mkdir(exist_ok=True)

        def narrow() -> None:
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [str(board.folder / "bin/enet-rpcd"), "--key", key, "--port", "0", *map(str, options)]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
            preexec_fn=narrow,
            restore_signals=False,
        )
        said: list[str] = []
        assert process.stderr is not None
        threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, "")), daemon=True).start()
        server = Server(process, 0, said, folder)
        servers.append(server)
        if ready:
            wait_until(lambda: server.tells("listens at"))
            server.port = int(re.search(r"port (\d+)", "".join(said))[1])  # type: ignore[index]
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def at(tracker: Tracker) -> tuple[str, str]:
    return "--tracker", f"127.0.0.1:{tracker.port}"


def use(tracker: Tracker, library: Path, seconds: int = 60) -> tuple[Any, Any]:
    remote = tracker.client().request("board", session_timeout=seconds)
    remote.upload(str(library))
    return remote, remote.load_module(library.name)


def test_serves_a_network(serve: Any, tracker: Tracker, tiny_artifact: Any) -> None:
    import tvm
    from tvm import relax

    server = serve(*at(tracker))
    wait_until(lambda: tracker.free("board") == 1)
    remote, library = use(tracker, tiny_artifact.directory / "enet.so")
    assert tracker.free("board") == 0
    (session,) = server.sessions()
    assert (session / "files" / "enet.so").read_bytes() == (tiny_artifact.directory / "enet.so").read_bytes()
    machine = relax.VirtualMachine(library, remote.cpu())
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
    y = machine["main"](tvm.runtime.tensor(x, remote.cpu())).numpy()
    np.testing.assert_allclose(y, tiny_artifact.reference(x), rtol=1e-4, atol=1e-4)
    # What a tuner asks of the device.
    assert remote.get_function("tvm.contrib.random.random_fill") is not None
    del machine, library, remote
    wait_until(lambda: tracker.free("board") == 1)
    assert server.sessions() == []
    assert server.tells("session of .* s ended")


def test_tells_what_the_board_is(serve: Any) -> None:
    """As the server for boards with Python does."""
    from tvm import rpc

    from enet_tvm.rpc.session_process import FACTS, device_facts

    server = serve()
    remote = rpc.connect("127.0.0.1", server.port, key="board")
    told, expected = json.loads(str(remote.get_function(FACTS)())), device_facts()
    for key in ("model", "architecture", "system", "cpus", "processors", "governor"):
        assert told.get(key) == expected.get(key)
    assert set(told["cpu_features"]) == set(expected["cpu_features"])
    assert told["memory_mb"] == pytest.approx(expected["memory_mb"])
    assert 1 < told["peak_memory_mb"] < 1000
    assert told["free_disk_mb"] > 0
    assert told["versions"] == {key: value for key, value in expected["versions"].items() if key != "enet-tvm"}
    del remote


def test_times_calls_on_the_board(serve: Any, tracker: Tracker, tiny_artifact: Any, tmp_path: Path) -> None:
    """What `enet-tvm bench` asks of a device, as of the server for boards with Python."""
    import tvm
    from tvm import relax

    from enet_tvm.rpc import session_process as names

    serve(*at(tracker))
    remote, library = use(tracker, tiny_artifact.directory / "enet.so")
    machine = relax.VirtualMachine(library, remote.cpu())
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
    there = tvm.runtime.tensor(x, remote.cpu())
    timed, output = (remote.get_function(name) for name in (names.TIME_CALL, names.LAST_OUTPUT))
    assert output() is None
    for factor in (1, 2):
        there.copyfrom(factor * x)
        assert 0 < timed(machine.module, "main", there) < 60
        np.testing.assert_allclose(output().numpy(), tiny_artifact.reference(factor * x), rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match=r"no such function|has no"):
        timed(machine.module, "other", there)
    (tmp_path / "b").write_text("  one line \n\n")
    (tmp_path / "a").write_bytes(b"tegra\0")
    assert remote.get_function(names.FIND_FILES)(f"{tmp_path}/[ab]") == f"{tmp_path}/a\n{tmp_path}/b"
    assert remote.get_function(names.FIND_FILES)(f"{tmp_path}/none*") == ""
    read = remote.get_function(names.READ_FILE)
    assert [read(str(tmp_path / name)) for name in "abc"] == ["tegra", "one line", None]
    with pytest.raises(Exception, match="CUDA runtime does not load on the device"):
        remote.get_function(names.OPEN_GPU)()
    del timed, output, read, there, machine, library, remote


@pytest.mark.slow
def test_a_crash_takes_nothing_with_it(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    server = serve(*at(tracker))
    remote, library = use(tracker, misbehaviour)
    process = library["process"]()
    with pytest.raises(Exception, match=r"SIGSEGV|closed|reset|EOF|aborted"):
        library["crash"]()
    wait_until(lambda: tracker.free("board") == 1)
    assert not alive(process)
    assert server.sessions() == []
    assert server.tells("the session's process on the device died of SIGSEGV")
    again, library = use(tracker, misbehaviour)
    assert alive(library["process"]())
    del library, again, remote


@pytest.mark.slow
def test_a_session_that_takes_too_long_is_ended(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    server = serve(*at(tracker))
    remote, library = use(tracker, misbehaviour, seconds=2)
    process = library["process"]()
    begin = time.monotonic()
    with pytest.raises(Exception, match=r"RPCSessionTimeoutError|closed|reset"):
        library["hang"]()
    assert time.monotonic() - begin < 10
    wait_until(lambda: tracker.free("board") == 1)
    assert not alive(process)
    assert server.sessions() == []
    del library, remote


def test_what_a_session_started_goes_with_it(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    serve(*at(tracker))
    remote, library = use(tracker, misbehaviour)
    child = library["leave_child"]()
    assert alive(child)
    del library, remote
    wait_until(lambda: not alive(child))
    wait_until(lambda: tracker.free("board") == 1)


@pytest.mark.slow
def test_registers_again_when_the_tracker_restarts(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    tracker.stop()
    server = serve(*at(tracker))
    wait_until(lambda: server.tells("no tracker answers"))
    tracker.start()
    wait_until(lambda: tracker.free("board") == 1)
    tracker.stop()
    wait_until(lambda: server.tells("tracker at .* is gone"))
    tracker.start()
    wait_until(lambda: tracker.free("board") == 1)
    # In the middle of a session, too: it goes on, and afterwards the board is offered to the new tracker.
    remote, library = use(tracker, misbehaviour)
    tracker.stop()
    tracker.start()
    assert alive(library["process"]())
    del library, remote
    wait_until(lambda: tracker.free("board") == 1)


@pytest.mark.slow
def test_a_key_that_nobody_comes_with_is_replaced(serve: Any, tracker: Tracker) -> None:
    from tvm.rpc import base

    serve(*at(tracker))
    wait_until(lambda: tracker.free("board") == 1)
    # A client that takes the board from the tracker and goes away.
    with socket.create_connection(("127.0.0.1", tracker.port)) as connection:
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        base.recvall(connection, 4)
        base.sendjson(connection, [base.TrackerCode.REQUEST, "board", "", 1])
        assert base.recvjson(connection)[0] == base.TrackerCode.SUCCESS
        assert tracker.free("board") == 0
    wait_until(lambda: tracker.free("board") == 1, 20)


def test_strangers_are_sent_away(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    from tvm import rpc

    server = serve(*at(tracker))
    wait_until(lambda: tracker.free("board") == 1)
    for message in (b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack("<ii", 0xFF271, 2**31 - 1), struct.pack("<ii", 0xFF271, -5)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(message)
    with pytest.raises(Exception, match=r"mismatch|Cannot find|key"):
        rpc.connect("127.0.0.1", server.port, key="other")
    with socket.create_connection(("127.0.0.1", server.port)):  # says nothing, and stays
        remote, library = use(tracker, misbehaviour)
        assert alive(library["process"]())
        # The board is taken.
        with pytest.raises(Exception, match=r"mismatch|Cannot find|key"):
            rpc.connect("127.0.0.1", server.port, key="board")
        del library, remote


def test_without_a_tracker(serve: Any, misbehaviour: Path) -> None:
    from tvm import rpc

    server = serve()
    for _ in range(2):
        remote = rpc.connect("127.0.0.1", server.port, key="board")
        remote.upload(str(misbehaviour))
        assert alive(remote.load_module(misbehaviour.name)["process"]())
        del remote


def test_listens_to_this_machine_alone(serve: Any) -> None:
    server = serve()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), 5)
    server = serve("--host", "0.0.0.0")
    socket.create_connection(("127.0.0.2", server.port), 5).close()
    assert server.tells("RPC runs whatever code a client sends")


@pytest.mark.parametrize("busy", [False, True])
def test_ends_when_told(serve: Any, tracker: Tracker, misbehaviour: Path, busy: bool) -> None:
    server = serve(*at(tracker))
    wait_until(lambda: tracker.free("board") == 1)
    held, process = None, 0
    if busy:
        held = use(tracker, misbehaviour)
        process = held[1]["process"]()
    server.process.terminate()
    assert server.process.wait(5) == 0
    assert not alive(process)
    assert server.sessions() == []
    wait_until(lambda: tracker.free("board") == 0)
    del held


@pytest.mark.slow
def test_no_session_outlives_a_killed_server(serve: Any, tracker: Tracker, misbehaviour: Path, tmp_path: Path) -> None:
    server = serve(*at(tracker))
    held = use(tracker, misbehaviour)
    process = held[1]["process"]()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not alive(process))
    del held
    # What it left behind, the next one removes; what belongs to a server that lives stays, whichever process that is.
    assert len(server.sessions()) == 1
    other = server.folder / "enet-rpcd-abcdef"
    other.mkdir()
    (server.folder / "enet-rpcd-link").symlink_to(tmp_path)
    with (other / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        serve(folder=server.folder)
        assert sorted(path.name for path in server.sessions()) == ["enet-rpcd-abcdef", "enet-rpcd-link"]
    serve(folder=server.folder)
    assert [path.name for path in server.sessions()] == ["enet-rpcd-link"]
    assert tmp_path.is_dir()


@pytest.mark.slow
def test_no_session_lasts_for_ever(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    server = serve(*at(tracker), "--session-seconds", "1.5")
    for seconds in (0, 600):
        remote, library = use(tracker, misbehaviour, seconds)
        with pytest.raises(Exception, match=r"RPCSessionTimeoutError|closed|reset"):
            library["hang"]()
        wait_until(lambda: tracker.free("board") == 1)
        del library, remote
    assert server.sessions() == []


@pytest.mark.slow
def test_a_full_disk_is_told(serve: Any, tracker: Tracker, tmp_path: Path, misbehaviour: Path) -> None:
    server = serve(*at(tracker), limit=64 << 10)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    remote, library = use(tracker, misbehaviour)
    with pytest.raises(Exception, match="cannot store large on the device: File too large"):
        remote.upload(str(tmp_path / "large"))
    assert alive(library["process"]())
    (session,) = server.sessions()
    assert not (session / "files" / "large").exists()
    del library, remote


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tracker", "here:0"), "must be HOST:PORT"),
        (("--tracker", "a b"), "must be HOST:PORT"),
        (("--tracker", "[::1"), "must be HOST:PORT"),
        (("--tracker", ""), "must be HOST:PORT"),
        (("--host", "127.0.0.1:9090"), "--host is '127.0.0.1:9090'"),
        (("--port", "many"), "--port is many"),
        (("--session-seconds", "-1"), "--session-seconds is -1"),
        (("--host", "203.0.113.1"), "cannot listen at 203.0.113.1"),
        (("--key", "a:b"), "without spaces, colons and quotes"),
        (("--key", 'a"b'), "without spaces, colons and quotes"),
        (("--key", "a\x1b[31m"), "'a?[31m'"),
        (("--key", "k" * 80), "a short name"),
        (("--custom-addr", 'a"b'), "--custom-addr"),
        (("--custom-addr", "board:9090"), "without a port"),
        (("--unknown",), "usage: enet-rpcd"),
    ],
)
def test_command_line(serve: Any, options: tuple[str, ...], words: str) -> None:
    server = serve(*options, ready=False)
    assert server.process.wait(10) == 2
    wait_until(lambda: server.tells(re.escape(words)))


def test_every_port_taken(serve: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = serve("--port", port, "--port-end", port + 1, ready=False)
        assert server.process.wait(10) == 2
        wait_until(lambda: server.tells("in use"))


# What any peer may say


MAGIC, MISMATCH = 0xFF271, 0xFF273


def greeting(text: bytes) -> bytes:
    return struct.pack("<ii", MAGIC, len(text)) + text


def connected(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> int | None:
    """The number that the server answers; None if it hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < 4 and (part := connection.recv(4 - len(data))):
            data += part
    return struct.unpack("<i", data)[0] if len(data) == 4 else None


@pytest.mark.slow
def test_a_greeting_has_one_deadline(serve: Any) -> None:
    """A byte every now and then does not hold the door."""
    server = serve()
    start = time.monotonic()
    with connected(server.port) as connection:
        data = greeting(b"client:board" + b" " * 4000)
        with contextlib.suppress(OSError):
            for at in range(200):
                connection.sendall(data[at : at + 1])
                time.sleep(0.1)
            pytest.fail("it still listens after 20 seconds")
    assert 2 < time.monotonic() - start < 8


@pytest.mark.parametrize("count", [6, 100])
def test_silent_connections_delay_nobody(serve: Any, count: int) -> None:
    server = serve()
    with contextlib.ExitStack() as stack:
        for i in range(count):
            stack.enter_context(connected(server.port, greeting(b"client:board")[: i % 3]))
        start = time.monotonic()
        client = stack.enter_context(connected(server.port, greeting(b"client:board")))
        assert answer(client) == MAGIC
        assert time.monotonic() - start < 2
        # Beside the session, too: whoever comes with another key is sent away at once.
        start = time.monotonic()
        assert answer(stack.enter_context(connected(server.port, greeting(b"client:other")))) == MISMATCH
        assert time.monotonic() - start < 2


@pytest.mark.slow
def test_a_session_ends_in_time_whoever_knocks(serve: Any) -> None:
    server = serve()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(server.port, greeting(b"client:board -timeout=1.5")))
        assert answer(client) == MAGIC
        start = time.monotonic()
        for _ in range(6):
            stack.enter_context(connected(server.port, greeting(b"client:board")[:9]))
        wait_until(lambda: server.tells("RPCSessionTimeoutError"), 10)
        assert 1 < time.monotonic() - start < 5
    wait_until(lambda: server.sessions() == [])


@pytest.mark.slow
def test_without_a_tracker_clients_wait_in_line(serve: Any) -> None:
    server = serve()
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(server.port, greeting(b"client:board"))) for _ in range(3))
        assert answer(first) == MAGIC
        second.settimeout(0.5)
        with pytest.raises(TimeoutError):
            second.recv(4)
        second.settimeout(10)
        second.close()  # it has waited for long enough
        first.close()
        assert answer(third) == MAGIC


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    "text",
    [
        b"client:board\0",
        b"client:board\0more",
        b"client:",
        b"client",
        b"",
        b" ",
        b"server:board",
        b"client:boar",
        b"client:boards",
    ],
)
def test_greetings_with_another_key(serve: Any, text: bytes) -> None:
    server = serve()
    with connected(server.port, greeting(text)) as connection:
        assert answer(connection) == MISMATCH
    with connected(server.port, greeting(b" client:board\t-timeout=nan -timeout=-1\n")) as connection:
        assert answer(connection) == MAGIC


@pytest.mark.parametrize(
    "data",
    [struct.pack("<ii", MAGIC, 4097), struct.pack("<ii", MAGIC, -1), struct.pack("<ii", 7, 0), greeting(b"client:\xff")],
)
def test_what_is_no_greeting(serve: Any, data: bytes) -> None:
    server = serve()
    with connected(server.port, data) as connection:
        assert answer(connection) is None
    with connected(server.port, greeting(b"client:board")) as connection:
        assert answer(connection) == MAGIC


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["../x", "", "/tmp/x", "a/../../x", "a\0b", "..", ".", "a/"])
def test_names_of_uploads(serve: Any, tmp_path: Path, name: str) -> None:
    from tvm import rpc

    server = serve()
    remote = rpc.connect("127.0.0.1", server.port, key="board")
    upload = remote.get_function("tvm.rpc.server.upload")  # TVM's client minds some names itself
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Exception, match="outside the session's folder"):
        upload(name.encode() if "\0" in name else name, bytearray(b"content"))
    for ask in (remote.load_module, remote.download):
        if "\0" not in name:  # behind which TVM cuts texts off, and not bytes
            with pytest.raises(Exception, match="outside the session's folder"):
                ask(name)
    assert sorted(tmp_path.rglob("*")) == before
    upload("a/b/c", bytearray(b"content"))
    (session,) = server.sessions()
    assert (session / "files/a/b/c").read_bytes() == b"content"
    del upload, remote


class FakeTracker:
    """Says what it is told to, and then what a tracker says."""

    def __init__(self, answers: list[bytes], address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.answers = answers
        self.heard: list[Any] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with contextlib.suppress(OSError, ValueError, struct.error), connection:
                    self._speak(connection)

    def _speak(self, connection: socket.socket) -> None:
        connection.sendall(connection.recv(4, socket.MSG_WAITALL))
        offers: list[str] = []
        while True:
            (size,) = struct.unpack("<i", connection.recv(4, socket.MSG_WAITALL))
            message = json.loads(connection.recv(size, socket.MSG_WAITALL))
            self.heard.append(message)
            if message[0] == 3:
                offers = [message[2][1]]
            if message[0] == (7 if self.answers and self.answers[0].startswith(b"pending") else 5) and self.answers:
                connection.sendall(self.answers.pop(0).removeprefix(b"pending"))
                continue
            reply = json.dumps(offers if message[0] == 7 else 0).encode()
            connection.sendall(struct.pack("<i", len(reply)) + reply)


def framed(text: bytes) -> bytes:
    return struct.pack("<i", len(text)) + text


NONSENSE = [b"7", b"null", b"-1", b"[" * 100_000, b"", b"0 0", b'"0"', b"{}", b"\xff", b"NaN", b'{"a": 1, "a": 2}', b"false"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [b"", b"pending"], ids=["registering", "pending"])
@pytest.mark.parametrize(
    "reply",
    [
        *map(framed, NONSENSE),
        struct.pack("<i", 2**31 - 1),
        struct.pack("<i", -1),
        struct.pack("<i", 100) + b"drip",
        framed(b"[1]"),
    ],
    ids=lambda reply: repr(reply[:12]),
)
def test_a_tracker_that_talks_nonsense(serve: Any, kind: bytes, reply: bytes) -> None:
    """It is left, and asked again later: then it is a tracker like others."""
    fake = FakeTracker([kind + reply])
    server = serve("--tracker", f"127.0.0.1:{fake.port}")
    wait_until(lambda: any(message[0] == 3 for message in fake.heard), 30)
    assert server.process.poll() is None
    match = next(message[2][1] for message in fake.heard if message[0] == 3)
    with connected(server.port, greeting(f"client:{match}".encode())) as connection:
        assert answer(connection) == MAGIC


@pytest.mark.parametrize(
    ("address", "custom", "said"),
    [
        ("127.0.0.1:{}", "board.example", "board.example"),
        ("[::1]:{}", "[2001:db8::1]", "2001:db8::1"),
        (" localhost:{} ", "::1", "::1"),
    ],
)
def test_addresses(serve: Any, address: str, custom: str, said: str) -> None:
    try:
        fake = FakeTracker([], "::1" if "::1" in address else "127.0.0.1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    serve("--tracker", address.format(fake.port), "--custom-addr", custom)
    wait_until(lambda: any(message[0] == 3 for message in fake.heard))
    (put,) = [message for message in fake.heard if message[0] == 3][:1]
    (info,) = [message for message in fake.heard if message[0] == 5][:1]
    assert (put[3], info[1]["addr"][0]) == (said, said)


def test_listens_at_an_ipv6_address(serve: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = serve("--host", "[::1]")
    with socket.create_connection(("::1", server.port), 10) as connection:
        connection.sendall(greeting(b"client:board"))
        assert answer(connection) == MAGIC


def test_control_characters_are_not_printed(serve: Any) -> None:
    server = serve("--tracker", "127.0.0.1:1")
    wait_until(lambda: server.tells("no tracker answers"))
    for text in (b"client:\x1b[2J\x1b]0;title\x07", b"client:\xc2\x9b31m\r\n"):
        with connected(server.port, greeting(text)) as connection:
            assert answer(connection) == MISMATCH
    wait_until(lambda: server.tells("sent away"))
    assert all(letter.isprintable() or letter == "\n" for line in server.said for letter in line)


ADDRESSES = [
    *(
        "host",
        "host:1",
        "1.2.3.4",
        "1.2.3.4:65535",
        "[::1]",
        "[::1]:9190",
        "::1",
        "fe80::1%eth0",
        "[fe80::1%eth0]:3",
        " host:80 ",
    ),
    *(
        "",
        ":",
        ":1",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "a b",
        "a:b:c",
        "[::1",
        "::1]",
        "[host]:1",
        "[]:1",
        "a..b",
        "host:123456",
    ),
    *("x" * 64, "x" * 63, "a/b", "http://host:9190", "::1:9190:x", "1:2:3:4:5:6:7:8", "[1.2.3.4]:5", 'a"b', "a\x1bb"),
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_mean_what_they_mean_in_python(readers: Any, text: str) -> None:
    from enet_tvm.errors import UserError
    from enet_tvm.rpc import address

    def python(parse: Callable[[], Any]) -> str:
        try:
            return " ".join(map(str, (*parse(), "accepted")))
        except UserError:
            return "no"

    (c,) = readers.run("verdicts", "address", lines=[text])
    assert c == python(lambda: address.parse_address(text))
    (c,) = readers.run("verdicts", "host", lines=[text])
    assert c == python(lambda: (address.parse_host(text, "--host"),))


CPUINFO = {
    "big and little cores": "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp asimd\n",
    "little and big cores": "Features\t: fp asimd\nFeatures : asimd fp asimddp\n",
    "x86": "flags\t\t: fpu sse2 avx2\nbugs\t\t: spectre_v1\nvmx flags\t: vnmi\n",
    "parts of words": "flags\t: avx512 avx\nflags\t: avx avx5\n",
    "one of them has none": "flags\t: avx\nflags\t:\n",
    "nothing": "processor\t: 0\n",
}


@pytest.mark.parametrize("name", CPUINFO)
def test_features_mean_what_they_mean_in_python(readers: Any, tmp_path: Path, name: str) -> None:
    """Those of every processor: a library with an instruction that some lack would be sent to the board, and killed."""
    (tmp_path / "cpuinfo").write_text(CPUINFO[name])
    (said,) = readers.run("verdicts", "features", lines=[tmp_path / "cpuinfo"])
    assert set(said.split()) - {"accepted"} == cpu_features(tmp_path / "cpuinfo")
