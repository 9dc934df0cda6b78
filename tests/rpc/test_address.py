from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address, is_host, parse_address, parse_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.1.10:9190", Address("192.168.1.10", 9190)),
        ("192.168.1.10", Address("192.168.1.10", 9190)),
        ("tracker.local", Address("tracker.local", 9190)),
        (" laptop:1 ", Address("laptop", 1)),
        ("my_board.:80", Address("my_board.", 80)),
        ("[::1]:9191", Address("::1", 9191)),
        ("[::1]", Address("::1", 9190)),
        ("::1", Address("::1", 9190)),
        ("fe80::1%eth0", Address("fe80::1%eth0", 9190)),
        ("[fe80::1%eth0]:7", Address("fe80::1%eth0", 7)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":9190", "host:", "host:0", "host:65536", "host:http", "two words:9190", "host:-1", "host:+1", "host:९"),
        *("http://laptop:9190", "laptop:9190/", "a..b:1", ".:1", f"{'a' * 64}:1", f"{'a.' * 127}a:1", "a\0b:1", "a\x1b[31m:1"),
        *("[::1", "::1]:9190", "[laptop]:9190", "[]:9190", "[::1]9190", "[::1]::9190", "1:2:3", "::1%"),
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        parse_address(text)


@given(st.text(max_size=30) | st.from_regex(r"\A[\[\]0-9a-f:.%]{0,20}\Z"))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        address = parse_address(text)
        assert 0 < address.port < 65536
        assert is_host(address.host)
        assert parse_address(str(address)) == address


@given(st.text(alphabet="az09-_.:%f", max_size=70))
def test_a_host_can_be_looked_up(text: str) -> None:
    """Where Python gives up before it asks, it raises what is no OSError."""
    if is_host(text):
        with contextlib.suppress(OSError):
            socket.getaddrinfo(text, 1, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize(("text", "host"), [("::1", "::1"), ("[::1]", "::1"), ("pi.local", "pi.local"), ("10.0.0.7",) * 2])
def test_hosts(text: str, host: str) -> None:
    assert parse_host(text, "--custom-addr") == host


@pytest.mark.parametrize("text", ["", "pi:9090", "[::1]:9090", 'a"b', "a b", "[pi]"])
def test_no_hosts(text: str) -> None:
    with pytest.raises(UserError, match="--custom-addr is a host's name or address, without a port"):
        parse_host(text, "--custom-addr")
