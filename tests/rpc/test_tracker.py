"""The tracker and the server against TVM's own: whoever has a farm already can keep it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import rpc

from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.devices import claim_device, list_devices
from enet_tvm.rpc.messages import TrackerCode
from enet_tvm.rpc.session import open_session
from enet_tvm.rpc.wire import TrackerConnection, pack_text
from enet_tvm.runtime.protocol import Capability
from enet_tvm.targets import load_target

STOCK_TRACKER = """
from tvm.rpc.tracker import PopenTrackerServerState
state = PopenTrackerServerState("127.0.0.1", 9700, 9799)
print("port", state.port, flush=True)
state.thread.join()
"""
pytestmark = pytest.mark.timeout(120)

STOCK_SERVER = """
import sys
from tvm.rpc.server import PopenRPCServerState
state = PopenRPCServerState("127.0.0.1", 9900, 9999, tracker_addr=("127.0.0.1", int(sys.argv[1])), key="stock")
print("serving", state.port, flush=True)
state.thread.join()
"""


def test_tvms_client(board: Any) -> None:
    tracker, _ = board
    session = rpc.connect_tracker(tracker.host, tracker.port).request("board", session_timeout=30)
    array = tvm.runtime.tensor(np.arange(5, dtype="float32"), session.cpu())
    assert array.numpy().tolist() == [0, 1, 2, 3, 4]
    assert rpc.connect_tracker(tracker.host, tracker.port).summary()["queue_info"]["board"] == {"free": 0, "pending": 0}


@pytest.fixture
def stock(farm: Any, wait_until: Callable[..., Any]) -> Iterator[Address]:
    """Our tracker with TVM's server."""
    from tests.rpc.conftest import Program

    _, tracker = farm.start_tracker()
    server = Program([sys.executable, "-c", STOCK_SERVER, str(tracker.port)], farm.folder / "stock.log", start_new_session=True)
    try:
        wait_until(lambda: list_devices(tracker).free.get("stock"), 60)
        yield tracker
    finally:
        server.kill()


def test_a_server_without_a_tracker(farm: Any, tmp_path: Path) -> None:
    from tests.rpc.conftest import Program

    command = [sys.executable, "-m", "enet_tvm.rpc.server", "--key", "alone", "--port", "0", "--folder", str(tmp_path)]
    server = Program(command, tmp_path / "server.log")
    try:
        port = int(server.wait_for(r"serving alone on [\d.]+:(\d+)")[1])
        for _ in range(2):
            session = rpc.connect("127.0.0.1", port, "alone", session_timeout=20)
            assert tvm.runtime.tensor(np.ones(3, "float32"), session.cpu()).numpy().sum() == 3
            del session
        with pytest.raises(RuntimeError):
            rpc.connect("127.0.0.1", port, "another")
    finally:
        assert server.kill(15) == 0


def test_a_signal_as_soon_as_it_serves(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from enet_tvm.rpc.server import ServerSettings, serve
settings = ServerSettings("alone", port=0, folder=Path(sys.argv[1]))
serve(settings, print, lambda port: os.kill(os.getpid(), signal.SIGTERM))
print("in order")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    assert "in order" in done.stdout


@pytest.mark.slow
def test_tvms_server(stock: Address, tiny_artifact: Any) -> None:
    from enet_tvm.rpc.engine import DeviceSegmenter

    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24), np.float32)
    with DeviceSegmenter.open(tiny_artifact.directory, stock, "stock", threads=1) as segmenter:
        assert segmenter.engine.facts == {}
        assert segmenter.threads == 1
        np.testing.assert_allclose(segmenter.forward(x), tiny_artifact.reference(x), rtol=1e-5, atol=1e-5)
        assert segmenter.engine.last is not None
        assert segmenter.engine.last.device > 0
        # What only our servers have functions for is not declared, and refused in a sentence.
        assert segmenter.capabilities == {Capability.TIMED_PASSES}
        assert segmenter.forward_timed(x)[1] > 0
        with pytest.raises(UserError, match=r"^stock at \S+ cannot time every kernel; serve the device with 'enet-tvm"):
            segmenter.time_kernels(x, 1)
        with pytest.raises(UserError, match=r"^stock at \S+ cannot return what every kernel wrote; serve the device"):
            segmenter.run_instrumented(x)


@pytest.mark.slow
def test_tvms_tracker(farm: Any, misbehaving_library: Path) -> None:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from tests.rpc.conftest import Program

    program = Program([sys.executable, "-c", STOCK_TRACKER], farm.folder / "tracker.log", start_new_session=True)
    try:
        tracker = Address("127.0.0.1", int(program.wait_for(r"port (\d+)", 60)[1]))
        farm.start_server(tracker)
        assert [(device.key, device.free) for device in list_devices(tracker).devices] == [("board", None)]
        for _ in range(2):
            with open_session(tracker, "board") as session:
                assert list_devices(tracker).free["board"] == 0
                module = session.load_module(session.upload(misbehaving_library))
                with session.within(10, "counting"):
                    assert int(module["seven"]()) == 7
                with pytest.raises(UserError, match="'board' is in use"):
                    claim_device(tracker, "board", wait=0.5)
    finally:
        program.kill()


def test_network_on_our_server(board: Any, tiny_artifact: Any) -> None:
    from enet_tvm.rpc.engine import DeviceSegmenter

    x = np.random.default_rng(0).standard_normal((3, 3, 16, 24), np.float32)
    with DeviceSegmenter.open(tiny_artifact.directory, board[0], "board", threads=1) as segmenter:
        np.testing.assert_allclose(segmenter.forward(x), tiny_artifact.reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_gpu_that_is_not_there(board: Any, tiny_artifact: Any, tmp_path: Path) -> None:
    from enet_tvm.rpc.engine import DeviceSegmenter
    from enet_tvm.runtime.gpu import missing_driver

    if missing_driver() is None:
        pytest.skip("this machine has a GPU")
    artifact = tmp_path / "artifact"
    shutil.copytree(tiny_artifact.directory, artifact)
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["target"]["device"] = "cuda"
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"failed in opening its GPU: .*CUDA driver"):
        DeviceSegmenter.open(artifact, board[0], "board")


@pytest.mark.slow
@pytest.mark.parametrize(("key", "sentence"), [("mine", "no device 'mine'"), (None, "no device 'rpi5'")])
def test_bench_looks_for_the_device_before_it_compiles(board: Any, tmp_path: Path, key: str | None, sentence: str) -> None:
    from enet_tvm.bench.runners import Case, open_runner
    from enet_tvm.size import Size

    case = Case(Workload(tmp_path / "none", Size(64, 48), load_target("rpi5"), 1), tmp_path, str(board[0]), key)
    with pytest.raises(UserError, match=sentence):
        open_runner("tvm-rpc", case)
    assert not list(tmp_path.iterdir())


def test_the_first_who_asks_is_served_first_unless_another_is_more_urgent(farm: Any) -> None:
    _, tracker = farm.start_tracker()
    clients = [TrackerConnection(tracker) for _ in range(3)]
    for client, priority in zip(clients, (1, 1, 5), strict=True):
        client.socket.sendall(_request(priority))
    with TrackerConnection(tracker) as device:
        device.ask(TrackerCode.UPDATE_INFO, {"key": "server:k", "addr": [None, 1]})
        assert list_devices(tracker).waiting["k"] == 3
        for order in (2, 0, 1):
            device.ask(TrackerCode.PUT, "k", [1, f"match-{order}"], None)
            clients[order].socket.settimeout(5)
            assert b"match-%d" % order in clients[order].socket.recv(200)
    for client in clients:
        client.close()


@pytest.mark.slow
def test_an_address_of_its_own(farm: Any, misbehaving_library: Path) -> None:
    """By which clients reach a board where the tracker sees another, as behind a router."""
    _, tracker = farm.start_tracker()
    farm.start_server(tracker, "--custom-addr", "localhost")
    (device,) = list_devices(tracker).devices
    assert device.address.host == "localhost"
    with open_session(tracker, "board") as session:
        assert "board at localhost:" in session.name
        assert session.facts()["cpus"] > 0


@pytest.mark.slow
def test_ipv6(farm: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    _, tracker = farm.start_tracker(host="::1")
    assert str(tracker).startswith("[::1]:")
    server = farm.start_server(tracker, "--host", "[::1]")
    port = int(server.wait_for(r"serving board on \[::1\]:(\d+)")[1])
    assert [device.address for device in list_devices(tracker).devices] == [Address("::1", port)]
    with open_session(tracker, "board") as session:
        assert session.facts()["cpus"] > 0


def _request(priority: int) -> bytes:
    return pack_text(json.dumps([TrackerCode.REQUEST, "k", "", priority]))


@pytest.mark.slow
def test_who_leaves_waits_no_more(farm: Any, wait_until: Callable[..., Any]) -> None:
    _, tracker = farm.start_tracker()
    farm.start_server(tracker)
    with open_session(tracker, "board"):
        impatient = TrackerConnection(tracker)
        with pytest.raises(TimeoutError):
            impatient.ask(TrackerCode.REQUEST, "board", "", 1, timeout=0.2)
        assert list_devices(tracker).waiting["board"] == 1
        impatient.close()
        wait_until(lambda: list_devices(tracker).waiting["board"] == 0)
    wait_until(lambda: list_devices(tracker).free["board"] == 1)


def test_light_imports() -> None:
    """What a board runs needs neither a compiler nor PyTorch, typer or pydantic."""
    import subprocess

    code = (
        "import sys, enet_tvm.rpc.server, enet_tvm.rpc.session_process as s; s.prepare();"
        "heavy = {'torch', 'tvm', 'typer', 'pydantic', 'PIL', 'psutil', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_relay_needs_nothing_but_python(tmp_path: Path) -> None:
    import ast

    from enet_tvm.rpc import relay_process

    tree = ast.parse(Path(relay_process.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names <= set(sys.stdlib_module_names)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imported] == ["__future__"]
