"""The C server against TVM's own tracker and client: what it serves, and what it survives."""

from __future__ import annotations

import contextlib
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
from enet_tvm.machine import architecture

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
    assert (session / "enet.so").read_bytes() == (tiny_artifact.directory / "enet.so").read_bytes()
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


def test_no_session_outlives_a_killed_server(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    server = serve(*at(tracker))
    held = use(tracker, misbehaviour)
    process = held[1]["process"]()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not alive(process))
    del held
    # What it left behind, the next one removes; what belongs to a server that runs stays.
    assert len(server.sessions()) == 1
    (server.folder / f"enet-rpcd-{os.getpid()}-abcdef").mkdir()
    serve(folder=server.folder)
    assert [path.name for path in server.sessions()] == [f"enet-rpcd-{os.getpid()}-abcdef"]


def test_no_session_lasts_for_ever(serve: Any, tracker: Tracker, misbehaviour: Path) -> None:
    server = serve(*at(tracker), "--session-seconds", "1.5")
    for seconds in (0, 600):
        remote, library = use(tracker, misbehaviour, seconds)
        with pytest.raises(Exception, match=r"RPCSessionTimeoutError|closed|reset"):
            library["hang"]()
        wait_until(lambda: tracker.free("board") == 1)
        del library, remote
    assert server.sessions() == []


def test_a_full_disk_is_told(serve: Any, tracker: Tracker, tmp_path: Path, misbehaviour: Path) -> None:
    server = serve(*at(tracker), limit=64 << 10)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    remote, library = use(tracker, misbehaviour)
    with pytest.raises(Exception, match="the device cannot store the file: File too large"):
        remote.upload(str(tmp_path / "large"))
    assert alive(library["process"]())
    (session,) = server.sessions()
    assert not (session / "large").exists()
    del library, remote


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tracker", "nowhere"), "must be HOST:PORT"),
        (("--tracker", "here:0"), "must be HOST:PORT"),
        (("--port", "many"), "--port is many"),
        (("--session-seconds", "-1"), "--session-seconds is -1"),
        (("--host", "203.0.113.1"), "cannot listen at 203.0.113.1"),
        (("--key", "a:b"), "without spaces, colons and quotes"),
        (("--key", 'a"b'), "without spaces, colons and quotes"),
        (("--custom-addr", 'a"b'), "--custom-addr"),
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
