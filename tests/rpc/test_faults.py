"""Everything that goes wrong on the way to a device ends soon, in one sentence, and the next one gets the device.

What goes wrong on the device itself is in ``test_device_servers.py``, for both of its servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tvm  # noqa: F401 - takes seconds, and the tests look at the clock

from enet_tvm.artifact import read_manifest
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.devices import claim_device, list_devices
from enet_tvm.rpc.engine import RemoteEngine
from enet_tvm.rpc.messages import TrackerCode
from enet_tvm.rpc.session import DeviceSession, open_session
from enet_tvm.rpc.wire import TrackerConnection, pack_int
from tests.rpc.conftest import fails

pytestmark = pytest.mark.timeout(90)


def works(tracker: Address, library: Path, key: str = "board", wait: float = 15.0) -> None:
    """A new client gets a device and an answer from it."""
    with open_session(tracker, key, wait=wait, session_seconds=30) as session:
        assert seven(session, library) == 7


def seven(session: DeviceSession, library: Path) -> int:
    module = session.load_module(session.upload(library))
    with session.within(10, "counting"):
        return int(module["seven"]())


def call(session: DeviceSession, library: Path, function: str, seconds: float) -> None:
    module = session.load_module(session.upload(library))
    with session.within(seconds, "running the network"):
        module[function]()


def nothing_left(folder: Path) -> bool:
    return not list((folder / "uploads").iterdir())


# Before there is a session


def test_no_tracker(relays: Callable[[], list[Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = Address("127.0.0.1", unused.getsockname()[1])
    with fails("no tracker answers", str(address), "enet-tvm device tracker", within=3):
        open_session(address, "board")
    assert not relays()


def test_something_that_is_no_tracker() -> None:
    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet)
        thread.start()
        with fails("no tracker answers", "not a tracker", within=3):
            list_devices(Address("127.0.0.1", listener.getsockname()[1]))
        thread.join()


def test_tracker_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, fails("no tracker answers", "timed out", within=3):
        list_devices(Address("127.0.0.1", listener.getsockname()[1]), timeout=0.5)


@pytest.mark.slow
def test_wrong_key(board: Any) -> None:
    with fails("no device 'rpi9'", "it has board", "enet-tvm device serve", within=4):
        open_session(board[0], "rpi9", wait=1)


@pytest.mark.slow
def test_tracker_without_devices(farm: Any) -> None:
    _, address = farm.start_tracker()
    with fails("no device 'board'", "it has none", within=4):
        open_session(address, "board", wait=0.5)


@pytest.mark.slow
def test_two_users_on_one_board(board: Any, misbehaving_library: Path) -> None:
    tracker, _ = board
    with open_session(tracker, "board", session_seconds=60) as first:
        assert list_devices(tracker).of("board")[0].free is False
        with fails("'board' is in use", "1 s", "try again later", within=4):
            open_session(tracker, "board", wait=1)
        # The one who was sent away did no harm.
        assert seven(first, misbehaving_library) == 7
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_the_second_user_gets_the_board_from_the_first(board: Any) -> None:
    tracker, _ = board
    got: list[Any] = []

    def wait_for_it() -> None:
        got.append(claim_device(tracker, "board", wait=20)[0])

    with open_session(tracker, "board", session_seconds=60):
        second = threading.Thread(target=wait_for_it)
        second.start()
        time.sleep(0.5)
        assert not got
    second.join(15)
    assert got
    got[0].close()


@pytest.mark.slow
def test_a_client_that_never_comes_back(board: Any, misbehaving_library: Path) -> None:
    tracker, server = board
    with TrackerConnection(tracker) as client:
        assert client.ask(TrackerCode.REQUEST, "board", "", 1)[0] == TrackerCode.SUCCESS
    works(tracker, misbehaving_library, wait=30)
    assert "never came" in server.text()


def test_noise_at_the_ports(board: Any, misbehaving_library: Path) -> None:
    tracker, server = board
    port = int(server.wait_for(r"serving board on [\d.]+:(\d+)")[1])
    for noise in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        pack_int(0xFF271) + pack_int(-1),
        pack_int(0xFF271) + pack_int(5) + b"\xff" * 5,
    ):
        for address in (("127.0.0.1", port), tuple(tracker)):
            with socket.create_connection(address, 5) as connection:
                connection.sendall(noise)
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(tracker):
        works(tracker, misbehaving_library)  # while two others hold the line and say nothing


# In a session


def test_two_libraries_of_one_name(board: Any, tiny_artifact: Any, tiny_artifact_of_two: Any) -> None:
    random = np.random.default_rng(0)
    with open_session(board[0], "board") as session:
        artifacts = tiny_artifact, tiny_artifact_of_two
        manifests = [read_manifest(artifact.directory) for artifact in artifacts]
        assert manifests[0].library == manifests[1].library
        pairs = list(zip(artifacts, manifests, strict=True))
        engines = [RemoteEngine(session, artifact.directory, manifest, 1) for artifact, manifest in pairs]
        for engine, (artifact, manifest) in zip(engines * 2, pairs * 2, strict=True):
            x = random.standard_normal(manifest.input.shape).astype(np.float32)
            expected = np.einsum("oi,nihw->nohw", artifact.weights, 2 * x)
            np.testing.assert_allclose(engine.run(x), expected, atol=1e-4)
        for engine in engines:
            engine.close()


@pytest.mark.slow
def test_call_that_does_not_return(board: Any, misbehaving_library: Path, relays: Callable[[], list[Any]]) -> None:
    tracker, server = board
    with fails("not done with running the network after 1 s", within=5), open_session(tracker, "board") as session:
        process = server.session()
        call(session, misbehaving_library, "spin", 1)
    assert not relays()
    # The device ends it when it sees that nobody is there any more; a kernel that spins sees nothing, so the server must.
    works(tracker, misbehaving_library)
    assert not psutil.pid_exists(process.pid)


@pytest.mark.slow
def test_client_that_is_killed(board: Any, misbehaving_library: Path, wait_until: Callable[..., Any]) -> None:
    tracker, server = board
    code = f"""
from enet_tvm.rpc.session import open_session
from enet_tvm.rpc.address import Address
session = open_session(Address{tuple(tracker)!r}, "board")
print("open", session._relay._process.pid, flush=True)
input()
"""
    client = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    _, relay = client.stdout.readline().split()
    session = server.session()
    client.kill()
    client.communicate()
    wait_until(lambda: not psutil.pid_exists(int(relay)))
    wait_until(lambda: not psutil.pid_exists(session.pid))
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_device_that_hangs(board: Any, misbehaving_library: Path) -> None:
    tracker, server = board
    with fails("not done with counting", within=5), open_session(tracker, "board") as session:
        module = session.load_module(session.upload(misbehaving_library))
        process = server.session()
        process.suspend()
        with session.within(1, "counting"):
            module["seven"]()
    works(tracker, misbehaving_library)


def test_damaged_upload(board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of TVM's says nothing when its disk is full: what arrived is compared."""
    file = tmp_path / "model.so"
    file.write_bytes(b"model")
    with open_session(board[0], "board") as session:
        monkeypatch.setattr(
            session.remote, "upload", lambda content, name: type(session.remote).upload(session.remote, content[:-1], name)
        )
        with fails("did not store the whole of model.so", within=5):
            session.upload(file)


@pytest.mark.slow
def test_upload_without_a_name(board: Any) -> None:
    with open_session(board[0], "board") as session, fails("is no file's name", within=5), session.within(5, "receiving it"):
        session.remote.get_function("tvm.rpc.server.upload")("", bytearray(b"content"))


def test_a_name_with_a_zero_in_it(tmp_path: Path) -> None:
    """TVM's own client cannot send one, others can."""
    code = """
import sys
from pathlib import Path
from enet_tvm.rpc.session_process import _register, prepare
from enet_tvm.runtime.libraries import load_runtime
prepare()
_register(Path(sys.argv[1]))
for function, arguments in (("workpath", ()), ("upload", (b"x",)), ("load_module", ())):
    try:
        load_runtime().get_global_func(f"tvm.rpc.server.{function}")("a\\0b", *arguments)
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("'a\\x00b' is no file's name") == 3, done
    assert not list(tmp_path.iterdir())


# The device dies


@pytest.mark.slow
def test_death_in_an_upload(farm: Any, misbehaving_library: Path, tmp_path: Path, later: Any, relays: Any) -> None:
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    large = tmp_path / "large.so"
    large.write_bytes(os.urandom(1 << 20) * 96)
    with fails("was lost while receiving large.so", within=10), open_session(tracker, "board") as session:
        process = server.session()
        later(0.3, signal.SIGKILL, server.pid)
        session.upload(large)
    server.process.wait()
    _is_gone(process)
    assert not relays()
    farm.start_server(tracker)  # reboot
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_death_in_the_run(farm: Any, misbehaving_library: Path, later: Any, wait_until: Callable[..., Any]) -> None:
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    with fails("was lost while running the network", within=10), open_session(tracker, "board") as session:
        process = server.session()
        later(1, signal.SIGKILL, server.pid)
        call(session, misbehaving_library, "spin", 30)
    server.process.wait()
    _is_gone(process)
    wait_until(lambda: not list_devices(tracker).devices)
    with fails("no device 'board'", within=5):
        open_session(tracker, "board", wait=1)
    farm.start_server(tracker)
    assert nothing_left(farm.folder), "the folder of the server that was killed"
    works(tracker, misbehaving_library)


def test_death_between_runs(farm: Any, misbehaving_library: Path) -> None:
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    with fails("was lost while counting", within=10), open_session(tracker, "board") as session:
        assert seven(session, misbehaving_library) == 7
        server.kill()
        with session.within(10, "counting"):
            session.remote.get_function("runtime.NumThreads")()
    farm.start_server(tracker)
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_session_process_that_is_killed(board: Any, misbehaving_library: Path) -> None:
    tracker, server = board
    # Told by the server, or noticed here, whichever comes first.
    with fails("while counting", "killed", within=5), open_session(tracker, "board") as session:
        server.session().kill()
        with session.within(10, "counting"):
            session.remote.get_function("runtime.NumThreads")()
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_a_server_in_another_container_leaves_a_live_session_alone(farm: Any, misbehaving_library: Path) -> None:
    """It sees the folder of uploads, but not the process that they belong to."""
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process may be hidden from another here")
    _, tracker = farm.start_tracker()
    farm.start_server(tracker)
    with open_session(tracker, "board") as session:
        farm.start_server(tracker, key="other", python=[*container, sys.executable])
        assert not nothing_left(farm.folder)
        assert seven(session, misbehaving_library) == 7
    works(tracker, misbehaving_library, "other")


def _is_gone(process: psutil.Process) -> None:
    _, alive = psutil.wait_procs([process], timeout=5)
    assert not alive


# The tracker dies


@pytest.mark.slow
def test_tracker_restarted_in_a_session(farm: Any, misbehaving_library: Path, wait_until: Callable[..., Any]) -> None:
    program, tracker = farm.start_tracker()
    farm.start_server(tracker)
    with open_session(tracker, "board") as session:
        program.kill()
        assert seven(session, misbehaving_library) == 7, "a session needs no tracker"
        with fails("no tracker answers", within=3):
            list_devices(tracker)
        farm.start_tracker(tracker.port)
        known = wait_until(lambda: list_devices(tracker).of("board"))
        assert known[0].free is False
    wait_until(lambda: list_devices(tracker).free["board"])
    works(tracker, misbehaving_library)


@pytest.mark.slow
def test_tracker_restarted_while_a_client_waits(farm: Any, misbehaving_library: Path) -> None:
    program, tracker = farm.start_tracker()
    farm.start_server(tracker)
    got: list[Any] = []
    with open_session(tracker, "board"):
        waiting = threading.Thread(target=lambda: got.append(claim_device(tracker, "board", wait=25)[0]))
        waiting.start()
        time.sleep(0.3)
        program.kill()
        # The client asks again at once, and must find the new one there.
        farm.start_tracker(tracker.port)
    waiting.join(25)
    assert got
    got[0].close()
    works(tracker, misbehaving_library)


# The end of a server


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_cleanly(
    farm: Any, misbehaving_library: Path, number: signal.Signals, wait_until: Callable[..., Any]
) -> None:
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    with open_session(tracker, "board") as session:
        assert seven(session, misbehaving_library) == 7
        process = server.session()
        assert server.kill(number) == 0
        _is_gone(process)
        assert nothing_left(farm.folder)
    wait_until(lambda: not list_devices(tracker).devices)


def test_server_without_its_runtime(tmp_path: Path) -> None:
    """A board whose libraries are missing says so."""
    environment = {**os.environ, "TVM_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    shutil.copytree(Path(__import__("tvm_ffi").__file__).parent, tmp_path / "tvm_ffi")
    command = [sys.executable, "-m", "enet_tvm.rpc.server", "--key", "a:b", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "'a:b' is no key" in done.stderr


# Processes of the client


@pytest.mark.slow
@pytest.mark.timeout(240)  # the first to need it compiles a network
def test_a_forked_client_leaves_the_device_to_its_parent(board: Any, compiled_enet: Any, misbehaving_library: Path) -> None:
    """A child is refused at once, whatever it calls, and its end says nothing to the device, even if a call was going on."""
    program = f"""
import os, pickle, signal, sys, threading, time, traceback
import numpy as np
from enet_tvm.errors import UserError
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.rpc.session import open_session
from enet_tvm.rpc.wire import Address

address = Address({board[0].host!r}, {board[0].port})
segmenter = DeviceSegmenter.open({str(compiled_enet.directory)!r}, address, "board", threads=1)
x = np.ones((1, 3, *reversed(segmenter.manifest.input.shape[:1:-1])), np.float32)
expected = segmenter.forward(x)

def refused(call, words):
    try:
        call()
    except UserError as error:
        assert words in str(error), error
    else:
        raise AssertionError("it was not refused")

def child(end):
    made = os.fork()
    if made:
        return made
    signal.alarm(20)
    try:
        start = time.monotonic()
        refused(lambda: segmenter.forward(x), "process that this one was forked from")
        refused(lambda: segmenter.session.facts(), "process that this one was forked from")
        refused(lambda: segmenter.session.set_threads(1), "process that this one was forked from")
        segmenter.close()
        assert time.monotonic() - start < 3
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    end(0)

for end in (os._exit, sys.exit):
    assert os.waitpid(child(end), 0)[1] == 0
    assert (segmenter.forward(x) == expected).all()

ended = threading.Event()
def compute():
    while not ended.is_set():
        assert (segmenter.forward(x) == expected).all()
thread = threading.Thread(target=compute)
thread.start()
for _ in range(5):
    assert os.waitpid(child(os._exit), 0)[1] == 0
ended.set()
thread.join()
assert (segmenter.forward(x) == expected).all()
refused(lambda: pickle.dumps(segmenter), "a DeviceSegmenter cannot be sent to another process")
segmenter.close()
refused(lambda: segmenter.forward(x), "was closed")

# A child that outlives its parent's session neither keeps the device nor is kept from having one of its own.
session = open_session(address, "board")
made = os.fork()
if not made:
    signal.alarm(40)
    with open_session(address, "board", wait=20) as own:
        assert own.facts()["cpus"] >= 1
    os._exit(0)
session.close()
assert os.waitpid(made, 0)[1] == 0
print("done")
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "done\n"
    works(board[0], misbehaving_library)
