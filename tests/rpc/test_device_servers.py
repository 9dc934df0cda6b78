"""One suite for both servers of a device, in Python and in C: the same client, artifact and machine, and the same answers."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tvm
from tvm import relax

from enet_tvm.artifact import Manifest
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, choose_cores, usable_cpus
from enet_tvm.rpc import session_process
from enet_tvm.rpc.devices import list_devices
from enet_tvm.rpc.engine import DeviceSegmenter, RemoteEngine
from enet_tvm.rpc.session import DeviceSession, open_session
from enet_tvm.runtime.gpu import missing_driver
from tests.rpc.conftest import fails

pytestmark = pytest.mark.timeout(120)

OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[architecture()]
FUNCTIONS = (
    *(session_process.FACTS, session_process.CONFIGURE_THREADS, session_process.OPEN_GPU, session_process.TIME_CALL),
    *(session_process.LAST_OUTPUT, session_process.TIME_KERNELS, session_process.KEEP_OUTPUTS, session_process.KERNEL_OUTPUT),
    *(session_process.FIND_FILES, session_process.READ_FILE, session_process.BIND_CORES),
)


@pytest.fixture
def session(device_server: Any) -> Any:
    with open_session(device_server.tracker, "board", session_seconds=60) as session:
        yield session


def call(session: DeviceSession, name: str, *arguments: Any) -> Any:
    with session.within(20, "asking"):
        function = session.find(name)
        assert function is not None
        return function(*arguments)


def load(session: DeviceSession, library: Path) -> Any:
    return session.load_module(session.upload(library))


def seven(session: DeviceSession, library: Path) -> int:
    module = load(session, library)
    with session.within(10, "counting"):
        return int(module["seven"]())


def works(server: Any, library: Path) -> None:
    """The next client gets the device and an answer from it."""
    with open_session(server.tracker, "board", wait=20, session_seconds=30) as session:
        assert seven(session, library) == 7


# What a client finds there


def test_every_function_that_the_client_knows_is_there(session: DeviceSession) -> None:
    """A new one goes into both servers, or its client asks for it: then this list says which."""
    named = {value for name, value in vars(session_process).items() if name.isupper() and str(value).startswith("enet_tvm.")}
    assert named == set(FUNCTIONS)
    with session.within(20, "looking for functions"):
        assert [name for name in FUNCTIONS if session.find(name) is None] == []
        assert session.find("enet_tvm.nothing") is None


def test_an_artifact_is_loaded_run_and_timed_there(device_server: Any, tiny_artifact: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 24), np.float32)
    with DeviceSegmenter.open(tiny_artifact.directory, device_server.tracker, "board", threads=1) as segmenter:
        np.testing.assert_allclose(segmenter.forward(x), tiny_artifact.reference(x), rtol=1e-5, atol=1e-5)
        last = segmenter.engine.last
        assert last is not None
        assert 0 < last.device < last.device + last.upload + last.download < 60


MOST = len(usable_cpus())


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "made"), [(1, 1), (MOST, MOST), (MOST + 5, MOST), (0, 1), (-3, 1)])
def test_threads_are_as_many_as_asked_for(session: DeviceSession, device_server: Any, wanted: int, made: int) -> None:
    """At most one for each processor, and each may run on any; a pool that is there never grows, so a session says it first."""
    assert session.set_threads(wanted) == made
    assert int(call(session, "runtime.NumThreads")) == made
    process = device_server.server.session()
    assert len(process.threads()) == made
    assert {tuple(psutil.Process(thread.id).cpu_affinity()) for thread in process.threads()} == {tuple(usable_cpus())}


@pytest.mark.parametrize(("threads", "absent"), [(None, 0), (1, 0), (None, 1), (1, 2), (MOST + 1, 0)])
def test_cores_are_those_of_the_target(session: DeviceSession, device_server: Any, threads: int | None, absent: int) -> None:
    """Its last processors, beside some that no machine has: in the same words as here, and the pool stays on them."""
    wanted = [*usable_cpus()[-1:], *range(1000, 1000 + absent)] if absent < 2 else [1000, 1001]
    choice = choose_cores(wanted, threads)
    assert session.bind_cores(wanted, threads) == str(choice)
    assert bool(choice.bound) == (absent < 2 and threads != MOST + 1)
    assert session.set_threads(MOST) == len(choice.cpus)
    process = device_server.server.session()
    assert {tuple(psutil.Process(thread.id).cpu_affinity()) for thread in process.threads()} == {choice.cpus}


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("numbers", ["", "a", "1,", "-1"])
def test_cores_that_are_no_numbers(session: DeviceSession, numbers: str) -> None:
    with pytest.raises(UserError):
        call(session, session_process.BIND_CORES, 1, numbers)
    assert session.facts()


def test_facts_are_those_of_this_machine(session: DeviceSession) -> None:
    told, expected = session.facts(), session_process.device_facts()
    for key in ("model", "architecture", "system", "cpus", "governor", "memory_mb"):
        assert told.get(key) == (pytest.approx(expected[key], rel=1e-3) if key == "memory_mb" else expected.get(key))
    assert set(told["cpu_features"]) == set(expected["cpu_features"])
    assert set(expected) - {"processors"} <= set(told) | {"governor", "megahertz", "celsius"}
    assert told["versions"].items() >= {k: v for k, v in expected["versions"].items() if k != "enet-tvm"}.items()


def test_files_of_the_kernel(session: DeviceSession, tmp_path: Path) -> None:
    texts = {"a": "  one line \n\n", "b": "tegra\0", "c": "", "long": "x" * 100_000 + "\n", "lines": "one\n\ttwo\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    many = [tmp_path / "many" / f"{number:03}-{'n' * 100}" for number in range(200)]
    many[0].parent.mkdir()
    for path in many:
        path.touch()
    said = [call(session, session_process.READ_FILE, str(tmp_path / name)) for name in (*texts, "none")]
    assert said == ["one line", "tegra", "", "x" * 100_000, "one\n\ttwo", None]
    assert call(session, session_process.FIND_FILES, f"{tmp_path}/[ab]") == f"{tmp_path}/a\n{tmp_path}/b"
    assert call(session, session_process.FIND_FILES, f"{tmp_path}/many/*").splitlines() == [str(path) for path in many]
    assert call(session, session_process.FIND_FILES, f"{tmp_path}/x*") == ""


@pytest.mark.quick_cases(1)
def test_a_gpu_that_is_not_there(session: DeviceSession) -> None:
    if missing_driver() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"failed in asking: .*CUDA"):
        call(session, session_process.OPEN_GPU)


@pytest.mark.slow
def test_a_kernel_that_was_not_run(session: DeviceSession, tiny_artifact: Any) -> None:
    library = load(session, tiny_artifact.directory / "enet.so")
    with session.within(20, "setting up"):
        machine = relax.VirtualMachine(library, session.remote.cpu()).module
        x = tvm.runtime.tensor(np.ones((1, 3, 16, 24), np.float32), session.remote.cpu())
    assert len(json.loads(str(call(session, session_process.KEEP_OUTPUTS, machine, "main", x, "cpu")))) == 2
    np.testing.assert_array_equal(call(session, session_process.KERNEL_OUTPUT, 0).numpy(), 2 * x.numpy())
    for number in (0, 2, -1):  # what was fetched is let go of
        with pytest.raises(UserError, match=f"no output of a kernel {number} is kept"):
            call(session, session_process.KERNEL_OUTPUT, number)
    for function in (session_process.TIME_KERNELS, session_process.KEEP_OUTPUTS):
        with pytest.raises(UserError, match="failed in asking"):
            call(session, function, machine, "other", x, "cpu")
        # Nothing of the call that failed is left.
        assert len(json.loads(str(call(session, function, machine, "main", x, "cpu")))) == 2
    del machine, x, library


# What is refused


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": OTHER}, f"compiled for here ({OTHER}), and board at "),
        ({"cpu_features": ["avx1024f"]}, "lacks avx1024f; compile it for this device with --target"),
        ({"apache_tvm": "0.1"}, "compiled with apache-tvm 0.1, and board at "),
    ],
)
def test_a_library_for_another_machine_is_not_even_sent(
    session: DeviceSession, device_server: Any, tiny_artifact: Any, change: dict[str, Any], words: str
) -> None:
    content = json.loads((tiny_artifact.directory / "manifest.json").read_text())
    content["versions" if "apache_tvm" in change else "target"].update(change)
    manifest = Manifest.model_validate_json(json.dumps(content))
    with pytest.raises(UserError) as caught:
        RemoteEngine(session, tiny_artifact.directory, manifest)
    assert words in str(caught.value)
    assert not list(Path(device_server.server.session().cwd()).iterdir())


@pytest.mark.quick_cases(1)
def test_what_is_no_library(session: DeviceSession, misbehaving_library: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with fails("failed in loading text.so", within=5):
        load(session, text)
    with fails("failed in loading missing", within=5):
        session.load_module("missing.so")
    assert seven(session, misbehaving_library) == 7, "the session goes on"


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", ["../escaped.py", "a/../../escaped.py", "/tmp/escaped.py", ".", "a/.."])
def test_a_name_out_of_the_folder(session: DeviceSession, name: str) -> None:
    with fails("outside the session's folder", within=5):
        session.upload(Path(__file__), name)


@pytest.mark.slow
def test_a_full_disk(device_server: Any, farm: Any, misbehaving_library: Path, tmp_path: Path) -> None:
    _, tracker = farm.start_tracker()
    device_server.start(farm, tracker, largest_file=1 << 20)
    large = tmp_path / "large.so"
    large.write_bytes(bytes(2 << 20))
    with open_session(tracker, "board") as session:
        with fails("cannot store what was sent to it (", "); make room on its disk", within=10):
            session.upload(large)
        assert seven(session, misbehaving_library) == 7, "the session goes on"


# What dies


@pytest.mark.slow
@pytest.mark.parametrize(("function", "word"), [("illegal", "SIGILL"), ("memory", "SIGSEGV")])
def test_a_crash(device_server: Any, misbehaving_library: Path, function: str, word: str) -> None:
    with open_session(device_server.tracker, "board", wait=20) as session:
        module = load(session, misbehaving_library)
        with fails("crashed while running:", word, within=5), session.within(20, "running"):
            module[function]()
    works(device_server, misbehaving_library)


@pytest.mark.slow
def test_a_session_that_is_killed(device_server: Any, misbehaving_library: Path, later: Callable[..., None]) -> None:
    with open_session(device_server.tracker, "board", wait=20) as session:
        module = load(session, misbehaving_library)
        later(0.3, signal.SIGKILL, device_server.server.session().pid)
        with fails("crashed while running: SIGKILL, it was killed", within=6), session.within(20, "running"):
            module["spin"]()
    works(device_server, misbehaving_library)


@pytest.mark.slow
def test_a_session_that_is_over(device_server: Any, misbehaving_library: Path) -> None:
    with open_session(device_server.tracker, "board", wait=20, session_seconds=2) as session:
        process = device_server.server.session()
        module = load(session, misbehaving_library)
        with fails("session of 2 s", "--session-seconds", within=6), session.within(20, "running"):
            module["spin"]()
    works(device_server, misbehaving_library)
    assert not psutil.pid_exists(process.pid)


@pytest.mark.slow
def test_a_client_that_gives_up(device_server: Any, misbehaving_library: Path) -> None:
    with open_session(device_server.tracker, "board", wait=20) as session:
        process = device_server.server.session()
        module = load(session, misbehaving_library)
        with fails("not done with running after 1 s", within=5), session.within(1, "running"):
            module["spin"]()
    works(device_server, misbehaving_library)
    assert not psutil.pid_exists(process.pid)


# At the tracker


@pytest.mark.quick_cases(1)
def test_a_device_is_offered_again_at_once(device_server: Any) -> None:
    """When a session has ended, not when the tracker is next spoken to, every two seconds."""
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        with open_session(device_server.tracker, "board", session_seconds=60):
            seconds.append(time.monotonic() - start)
    assert sorted(seconds)[3] < 1


@pytest.mark.slow
def test_registered_and_in_use(device_server: Any, wait_until: Callable[..., Any]) -> None:
    (device,) = list_devices(device_server.tracker).of("board")
    assert device.address.host == "127.0.0.1"
    with open_session(device_server.tracker, "board", wait=20):
        assert list_devices(device_server.tracker).free["board"] == 0
        with pytest.raises(UserError, match="'board' is in use"):
            open_session(device_server.tracker, "board", wait=0.5)
    wait_until(lambda: list_devices(device_server.tracker).free["board"] == 1)


@pytest.mark.slow
def test_a_tracker_that_is_started_again(
    device_server: Any, farm: Any, misbehaving_library: Path, wait_until: Callable[..., Any]
) -> None:
    program, tracker = farm.start_tracker()
    device_server.start(farm, tracker, "--custom-addr", "localhost")
    program.kill()
    farm.start_tracker(tracker.port)
    wait_until(lambda: list_devices(tracker).free.get("board"))
    (device,) = list_devices(tracker).of("board")
    assert device.address.host == "localhost"


@pytest.mark.quick_cases(1)
def test_a_server_ends_in_order(device_server: Any, farm: Any, wait_until: Callable[..., Any]) -> None:
    _, tracker = farm.start_tracker()
    server = device_server.start(farm, tracker)
    session = open_session(tracker, "board")
    process = server.session()
    assert server.kill(signal.SIGTERM) == 0
    session.close()
    wait_until(lambda: not psutil.pid_exists(process.pid))
    wait_until(lambda: not list_devices(tracker).of("board"))
    assert not list((farm.folder / "uploads").iterdir())
