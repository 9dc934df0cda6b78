"""A server's door, in this process: who says nothing delays nobody."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enet_tvm.rpc import greetings as module
from enet_tvm.rpc.greetings import LONGEST_GREETING, MOST_GREETINGS, Greetings, wait_readable
from enet_tvm.rpc.wire import RPC_MAGIC, pack_int, pack_text

HELLO = pack_int(RPC_MAGIC) + pack_text("client:board")


class Door:
    """Greetings, and connections to them."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = listener.getsockname()
        self.greetings = Greetings(listener)
        self.clients: list[socket.socket] = []

    def knock(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, 5)
        client.sendall(data)
        self.clients.append(client)
        return client

    def texts(self, seconds: float) -> list[str]:
        """What has been said by the time of the first text, or after some seconds."""
        end = time.monotonic() + seconds
        while True:
            wait_readable(self.greetings.sockets, max(0.0, min(0.05, end - time.monotonic())))
            said = []
            for greeting, text in self.greetings.arrivals():
                greeting.connection.close()
                said.append(text)
            if said or time.monotonic() >= end:
                return said

    def close(self) -> None:
        self.greetings.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


def hung_up(client: socket.socket) -> bool:
    client.settimeout(2)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("silent", [1, 20, 100])
def test_silent_ones_delay_nobody(door: Door, silent: int) -> None:
    for _ in range(silent):
        door.knock()
    start = time.monotonic()
    door.knock(HELLO)
    assert door.texts(5) == ["client:board"]
    assert time.monotonic() - start < 3
    assert len(door.greetings) <= MOST_GREETINGS


def test_the_oldest_silent_one_makes_room(door: Door) -> None:
    speaking = door.knock(HELLO[:5])
    door.texts(0.1)
    silent = [door.knock() for _ in range(MOST_GREETINGS)]
    door.texts(0.1)
    assert hung_up(silent[0])
    speaking.sendall(HELLO[5:])
    assert door.texts(5) == ["client:board"]
    silent[-1].sendall(HELLO)
    assert door.texts(5) == ["client:board"]


def test_one_deadline_for_the_whole_greeting(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_SECONDS", 0.5)
    client = door.knock()
    start = time.monotonic()
    dripped = 0
    with contextlib.suppress(OSError):
        for byte in HELLO:
            client.sendall(bytes([byte]))
            dripped += 1
            assert door.texts(0.1) == []
            assert not door.greetings or door.greetings.deadline < float("inf")
    assert 4 <= dripped < len(HELLO)
    assert time.monotonic() - start < 3
    assert len(door.greetings) == 0


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "said",
    [
        *(b"GET / HTTP/1.1\r\n\r\n", pack_int(RPC_MAGIC + 1) * 2, pack_int(RPC_MAGIC) + pack_int(-1)),
        *(pack_int(RPC_MAGIC) + pack_int(LONGEST_GREETING + 1), pack_int(RPC_MAGIC) + pack_int(2) + b"\xff\xff"),
    ],
)
def test_no_greeting_ends_at_once(door: Door, said: bytes) -> None:
    client = door.knock(said)
    assert door.texts(0.2) == []
    assert hung_up(client)


def test_a_greeting_of_nothing_is_one(door: Door) -> None:
    """Eight bytes without a key: for the server to refuse."""
    door.knock(pack_int(RPC_MAGIC) + pack_int(0))
    assert door.texts(5) == [""]


def test_what_follows_a_greeting_is_left_for_the_session(door: Door) -> None:
    door.knock(HELLO + b"more")
    wait_readable(door.greetings.sockets, 5)
    ((greeting, _),) = door.greetings.arrivals()
    greeting.connection.settimeout(5)
    assert greeting.connection.recv(10) == b"more"
    greeting.connection.close()


def test_no_descriptor_is_left(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more files can be opened, those who say nothing make room."""
    import resource

    for _ in range(4):
        door.knock()
    door.texts(0.1)
    late = door.knock(HELLO)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Less than what is open: the next descriptor is one too many until one below is free again.
        lowest_free = socket.socket()
        number = lowest_free.fileno()
        lowest_free.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        assert door.texts(5) == ["client:board"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late.close()


PIECES = st.lists(st.binary(max_size=12), max_size=5)
STRANGE = st.builds(
    lambda magic, size, rest: struct.pack("<ii", magic, size) + rest,
    st.sampled_from([RPC_MAGIC, RPC_MAGIC, 0, -1]),
    st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 20),
    st.binary(max_size=24),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | STRANGE.map(lambda data: [data]), max_size=6), st.booleans())
def test_whatever_others_say_a_client_is_heard(door: Door, others: list[list[bytes]], leave: bool) -> None:
    strangers = []
    for pieces in others:
        stranger = door.knock()
        strangers.append(stranger)
        for piece in pieces:
            with contextlib.suppress(OSError):
                stranger.sendall(piece)
    if leave:
        for stranger in strangers:
            stranger.close()
    door.knock(HELLO)
    said: list[str] = []
    while "client:board" not in said:
        new = door.texts(2)
        assert new, said
        said += new
