from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.rpc.wire import Address, pack_text, parse_address, receive_json, receive_text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.1.10:9190", Address("192.168.1.10", 9190)),
        ("tracker.local", Address("tracker.local", 9190)),
        (" laptop:1 ", Address("laptop", 1)),
        ("[::1]:9190", Address("::1", 9190)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", ":9190", "host:", "host:0", "host:65536", "host:http", "two words:9190", "host:-1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        parse_address(text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        address = parse_address(text)
        assert 0 < address.port < 65536
        assert address.host


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_an_os_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        with contextlib.suppress(OSError):
            receive_json(ours, time.monotonic() + 1)


@given(st.text(max_size=200))
def test_texts_arrive(text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(pack_text(text) + pack_text(json.dumps([text])))
        assert receive_text(ours, deadline=time.monotonic() + 1) == text
        assert receive_json(ours, time.monotonic() + 1) == [text]


def test_a_message_that_comes_drop_by_drop_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(pack_text("hello")[:6])
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            receive_text(ours, deadline=start + 0.2)
        assert time.monotonic() - start < 2
