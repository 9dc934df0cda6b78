"""Real servers and trackers among peers that say anything: each goes on, and the next good client is served."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.devices import list_devices
from enet_tvm.rpc.messages import LONGEST_KEY, LONGEST_MATCH_KEY, TrackerCode
from enet_tvm.rpc.relay import HandshakeError, Relay, shake_hands
from enet_tvm.rpc.session import open_session
from enet_tvm.rpc.tracker import MOST_PEERS, MOST_WAITING
from enet_tvm.rpc.wire import (
    MAX_MESSAGE,
    RPC_MAGIC,
    TRACKER_MAGIC,
    TrackerConnection,
    pack_int,
    pack_text,
    receive_int,
    receive_text,
)

pytestmark = pytest.mark.timeout(120)

FUZZ = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*range(-1, 8)])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3))


def sized(size: int, rest: bytes) -> bytes:
    return struct.pack("<i", size) + rest


SIZES = st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 64) | st.sampled_from([-1, 0, MAX_MESSAGE, MAX_MESSAGE + 1])
MESSAGES = (
    JSON.map(json.dumps).map(pack_text)
    | st.lists(LEAVES | JSON, min_size=1, max_size=4).map(json.dumps).map(pack_text)
    | st.builds(sized, SIZES, st.binary(max_size=40))
    | st.sampled_from([pack_text("[" * 10_000), pack_text('{"a":' * 2_000), pack_text("1e999"), pack_text("[5, NaN]")])
)
GREETINGS = (
    st.binary(max_size=40)
    | st.builds(sized, SIZES, st.binary(max_size=40)).map(lambda rest: pack_int(RPC_MAGIC) + rest)
    | st.text(max_size=30).map(lambda text: pack_int(RPC_MAGIC) + pack_text(text))
    | st.sampled_from(["", " ", "client:", "client:alone:", "server:alone"]).map(
        lambda text: pack_int(RPC_MAGIC) + pack_text(text)
    )
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Address, Any]]:
    """A server without a tracker."""
    import sys

    from tests.rpc.conftest import Server

    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "enet_tvm.rpc.server", "--key", "alone", "--port", "0", "--folder", str(folder)]
    server = Server(command, folder / "server.log")
    port = int(server.wait_for(r"serving alone on 127\.0\.0\.1:(\d+)")[1])
    yield Address("127.0.0.1", port), server
    assert server.kill(signal.SIGTERM) == 0
    assert "Traceback" not in server.text()


@pytest.fixture(scope="module")
def tracker(shared_farm: Any) -> Iterator[Address]:
    program, address = shared_farm.start_tracker()
    yield address
    assert program.kill(signal.SIGTERM) == 0
    assert "Traceback" not in program.text()


def say(address: Address, *pieces: bytes) -> socket.socket:
    connection = socket.create_connection(address, 5)
    with contextlib.suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
    return connection


def drip(connection: socket.socket, data: bytes) -> float:
    """Say it byte by byte and return the seconds after which the other side hung up."""
    start = time.monotonic()
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
        except OSError:
            return time.monotonic() - start
        time.sleep(0.25)
    raise AssertionError("it was heard to the end")


def is_served(address: Address, key: str = "alone", within: float = 4.0) -> None:
    start = time.monotonic()
    shake_hands(address, f"{key} -timeout=20", 10).close()
    took = time.monotonic() - start
    assert took < within, f"it took {took:.1f} s"


def counts_to_seven(tracker: Address, library: Path) -> None:
    with open_session(tracker, "board", wait=15) as session:
        module = session.load_module(session.upload(library))
        with session.within(10, "counting"):
            assert int(module["seven"]()) == 7


# The server's door


def test_eight_bytes_without_a_key(alone: Any) -> None:
    address, server = alone
    with say(address, pack_int(RPC_MAGIC), pack_int(0)) as connection:
        connection.settimeout(5)
        assert receive_int(connection) == RPC_MAGIC + 2, "sent away as one with another key"
    is_served(address)
    assert server.process.poll() is None


def test_twenty_silent_connections(alone: Any) -> None:
    address, _ = alone
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(say(address))
        is_served(address)
        for _ in range(60):
            stack.enter_context(say(address, pack_int(RPC_MAGIC)))
        is_served(address)


@pytest.mark.slow
def test_a_greeting_that_drips(alone: Any) -> None:
    address, _ = alone
    greeting = pack_int(RPC_MAGIC) + pack_text("client:alone " + "x" * 200)
    with say(address) as connection:
        assert drip(connection, greeting) < 6, "it had three seconds in all"
    is_served(address)


def test_strangers_beside_a_session(board: Any, misbehaving_library: Path) -> None:
    tracker, server = board
    port = int(server.wait_for(r"serving board on [\d.]+:(\d+)")[1])
    address = Address("127.0.0.1", port)
    with open_session(tracker, "board", session_seconds=60) as session, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(say(address))
        start = time.monotonic()
        with pytest.raises(HandshakeError, match="serving somebody else"):
            shake_hands(address, "board:0.5", 5)
        assert time.monotonic() - start < 3
        module = session.load_module(session.upload(misbehaving_library))
        with session.within(10, "counting"):
            assert int(module["seven"]()) == 7


def test_without_a_tracker_clients_wait_in_line(alone: Any) -> None:
    address, _ = alone
    first = shake_hands(address, "alone", 10)
    left = say(address, pack_int(RPC_MAGIC) + pack_text("client:alone"))
    served: list[float] = []
    second = threading.Thread(target=lambda: (is_served(address, within=10), served.append(time.monotonic())))
    second.start()
    left.close()
    time.sleep(0.5)
    assert not served
    end = time.monotonic()
    first.close()
    second.join(10)
    assert served
    assert served[0] - end < 4


@FUZZ
@given(others=st.lists(st.lists(GREETINGS, min_size=1, max_size=2), max_size=5), leave=st.booleans())
def test_whatever_is_said_at_the_door(alone: Any, others: list[list[bytes]], leave: bool) -> None:
    address, server = alone
    strangers = [say(address, *pieces) for pieces in others]
    if leave:
        for stranger in strangers:
            stranger.close()
    is_served(address, within=4)
    assert server.process.poll() is None
    for stranger in strangers:
        stranger.close()


@FUZZ
@given(data=st.binary(max_size=64))
def test_whatever_is_said_in_a_session(alone: Any, data: bytes) -> None:
    address, _ = alone
    session = shake_hands(address, "alone -timeout=1", 10)
    with session, contextlib.suppress(OSError):
        session.sendall(data)
    is_served(address, within=8)


# What a tracker tells a server


class Liar:
    """A tracker that answers each connection's first questions as a server expects it, and all others alike."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.honest = 0
        self.lied = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(4)
                receive_int(connection)
                connection.sendall(pack_int(TRACKER_MAGIC))
                for honest in ("0", "[]")[: self.honest]:
                    receive_text(connection)
                    connection.sendall(pack_text(honest))
                while True:
                    receive_text(connection)
                    self.lied += 1
                    connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


ANSWERS = {
    "seven": pack_text("7"),
    "null": pack_text("null"),
    "minus one": pack_text("-1"),
    "deep": pack_text("[" * 100_000),
    "huge": pack_int(1 << 30),
    "negative": pack_int(-5),
    "not text": pack_int(2) + b"\xff\xff",
    "too much": pack_text("0") * 50,
    "control characters": pack_text(json.dumps("\x1b[2J" * 1000)),
}


@pytest.mark.slow
def test_whatever_a_tracker_answers_the_server_goes_on(farm: Any, misbehaving_library: Path) -> None:
    import sys

    from tests.rpc.conftest import Server

    liar = Liar(ANSWERS["seven"])
    # Asks more often, for the test's sake.
    code = "import enet_tvm.rpc.server as server; server._PING_SECONDS = 0.2; server.main()"
    command = [sys.executable, "-c", code, "--tracker", f"127.0.0.1:{liar.port}", "--key", "board", "--port", "0"]
    server = Server([*command, "--folder", str(farm.folder)], farm.folder / "server.log")
    try:
        port = int(server.wait_for(r"serving board on [\d.]+:(\d+)")[1])
        for number, answer in enumerate(ANSWERS.values()):
            liar.answer, liar.honest, lied = answer, number % 3, liar.lied
            end = time.monotonic() + 10
            while liar.lied < lied + 2:
                assert time.monotonic() < end, server.text()
                assert server.process.poll() is None, server.text()
                time.sleep(0.02)
        assert liar.lied < 100, "it does not ask again and again"
        # It answers others all the while.
        with pytest.raises(HandshakeError):
            shake_hands(Address("127.0.0.1", port), "board", 8)
        liar.close()
        _, tracker = farm.start_tracker(liar.port)
        counts_to_seven(tracker, misbehaving_library)
        assert server.kill(signal.SIGTERM) == 0
        said = server.text()
        assert "Traceback" not in said
        assert "\x1b" not in said
        assert max(map(len, said.splitlines())) < 300
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_tracker_answers_a_client_says_a_sentence(name: str) -> None:
    liar = Liar(ANSWERS[name])
    try:
        with pytest.raises(UserError, match="gives no answer that makes sense") as caught:
            list_devices(Address("127.0.0.1", liar.port), timeout=2)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
    finally:
        liar.close()


# What peers tell a tracker


@FUZZ
@given(others=st.lists(st.lists(MESSAGES, min_size=1, max_size=3), max_size=4), truncate=st.integers(0, 8), leave=st.booleans())
def test_whatever_is_said_to_a_tracker(tracker: Address, others: list[list[bytes]], truncate: int, leave: bool) -> None:
    strangers = [say(tracker, pack_int(TRACKER_MAGIC), *pieces[:-1], pieces[-1][truncate:]) for pieces in others]
    if leave:
        for stranger in strangers:
            stranger.close()
    serves(tracker)
    for stranger in strangers:
        stranger.close()


def serves(tracker: Address, within: float = 4.0) -> None:
    """A device and a client find each other at a tracker."""
    start = time.monotonic()
    key = f"k{time.monotonic_ns()}"
    with TrackerConnection(tracker) as device, TrackerConnection(tracker) as client:
        assert device.ask(TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": [None, 9]}) == TrackerCode.SUCCESS
        assert device.ask(TrackerCode.PUT, key, [9, f"{key}:1"], None) == TrackerCode.SUCCESS
        assert list_devices(tracker).free[key] == 1
        assert client.ask(TrackerCode.REQUEST, key, "", 1) == [TrackerCode.SUCCESS, ["127.0.0.1", 9, f"{key}:1"]]
    took = time.monotonic() - start
    assert took < within, f"it took {took:.1f} s"


@pytest.mark.slow
def test_a_message_that_drips(tracker: Address) -> None:
    with say(tracker, pack_int(TRACKER_MAGIC)) as connection:
        assert drip(connection, pack_text("[" + " " * 300)) < 9
    serves(tracker)


def test_long_keys_are_not_kept(tracker: Address) -> None:
    """Two of 0.6 MB made the summary larger than clients accept."""
    for _ in range(2):
        with TrackerConnection(tracker) as device, pytest.raises(OSError, match=r"closed|reset|pipe"):
            device.ask(TrackerCode.UPDATE_INFO, {"key": "server:" + "k" * 600_000, "addr": [None, 9]})
    with TrackerConnection(tracker) as device:
        assert device.ask(TrackerCode.UPDATE_INFO, {"key": "server:" + "k" * LONGEST_KEY, "addr": [None, 9]}) == 0
        assert "k" * LONGEST_KEY in list_devices(tracker).keys
    serves(tracker)


def test_requests_of_clients_that_left_are_not_kept(tracker: Address, wait_until: Callable[..., Any]) -> None:
    for number in range(60):
        say(tracker, pack_int(TRACKER_MAGIC), pack_text(json.dumps([4, f"gone{number}", "", 1]))).close()
    wait_until(lambda: not any(key.startswith("gone") for key in list_devices(tracker).waiting))
    serves(tracker)


@pytest.mark.slow
def test_the_largest_summary_is_accepted(farm: Any, wait_until: Callable[..., Any]) -> None:
    """As much as a tracker keeps, in the keys and hosts that take the most room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * MOST_PEERS:
        pytest.skip("too few files may be open at a time")
    program, tracker = farm.start_tracker()
    host = ".".join(["h" * 62] * 4)[:253]

    def key(number: int) -> str:
        return f"{number:03}" + "é" * ((LONGEST_KEY - 3) // 2)

    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MOST_PEERS), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        servers = [stack.enter_context(TrackerConnection(tracker)) for _ in range(MOST_PEERS - 2)]
        for number, server in enumerate(servers):
            assert server.ask(TrackerCode.UPDATE_INFO, {"key": f"server:{key(number)}", "addr": [host, 65535]}) == 0
            server.socket.sendall(pack_text(json.dumps([4, key(500 + number), "", 1])))
        known = wait_until(lambda: (found := list_devices(tracker)) and len(found.waiting) >= 2 * len(servers) and found)
        assert len(known.devices) == len(servers)
        assert sum(known.waiting.values()) == len(servers) <= MOST_WAITING
        # Who says nothing makes room for who does.
        silent = [stack.enter_context(say(tracker)) for _ in range(10)]
        assert len(list_devices(tracker).devices) == len(servers)
        silent[0].settimeout(2)
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""
    serves(tracker)
    assert program.process.poll() is None


def test_offers_without_end_are_not_kept(tracker: Address) -> None:
    with TrackerConnection(tracker) as device:
        for number in range(100):
            assert device.ask(TrackerCode.PUT, "k", [9, f"{number:0{LONGEST_MATCH_KEY}}"], None) == TrackerCode.SUCCESS
        pending = device.ask(TrackerCode.GET_PENDING_MATCHKEYS)
    assert len(pending) <= 16
    assert int(pending[-1]) == 99


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_tracker_ends_in_order(farm: Any, number: signal.Signals) -> None:
    program, tracker = farm.start_tracker()
    farm.start_server(tracker)
    with TrackerConnection(tracker) as client, say(tracker):
        client.socket.sendall(pack_text(json.dumps([4, "other", "", 1])))
        assert list_devices(tracker).of("board")
        assert program.kill(number) == 0
    assert re.fullmatch(r"port \d+\n", program.text()), program.text()


# On the way from a client to a device


@pytest.fixture
def relay() -> Iterator[tuple[Relay, socket.socket]]:
    """A relay and the device's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = socket.create_connection(listener.getsockname())
        board, _ = listener.accept()
    board.settimeout(5)
    relay = Relay(device)
    yield relay, board
    relay.close()
    board.close()


def test_strangers_at_the_relay(relay: tuple[Relay, socket.socket]) -> None:
    """Anybody on this machine can connect to the relay's port; only TVM's client knows the key."""
    ours, board = relay
    address = Address("127.0.0.1", ours.port)
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(say(address))
            stack.enter_context(say(address, pack_int(RPC_MAGIC) + pack_int(0)))
            stack.enter_context(say(address, pack_int(RPC_MAGIC) + pack_text(f"client:{'0' * 32}")))
        start = time.monotonic()
        client = stack.enter_context(shake_hands(address, ours.key, 10))
        assert time.monotonic() - start < 3
        client.sendall(b"hello")
        assert board.recv(5) == b"hello"


@pytest.mark.slow
def test_a_relay_that_nobody_comes_to_keeps_its_limit(relay: tuple[Relay, socket.socket]) -> None:
    ours, board = relay
    with say(Address("127.0.0.1", ours.port)):
        ours.set_limit(1)
        assert board.recv(1) == b""
        assert ours.expired
