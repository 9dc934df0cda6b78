from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from enet_tvm.live.access import NO_TOKEN, WRONG_HOST, WRONG_ORIGIN, Gate, gate_for, is_loopback

HERE = Gate(None)
THERE = Gate("secret", frozenset({"localhost", "board", "board.local"}))
TOKEN = {"token": "secret"}


def headers(*hosts: str, origin: str | None = None) -> Headers:
    raw = [(b"host", host.encode("latin-1")) for host in hosts]
    return Headers(raw=raw if origin is None else [*raw, (b"origin", origin.encode("latin-1"))])


@pytest.mark.parametrize("host", ["127.0.0.1:8360", "localhost:8360", "LOCALHOST", "[::1]:8360", "127.0.0.2"])
def test_this_machine_answers_to_its_own_names(host: str) -> None:
    assert HERE.refusal(headers(host), {}) is None


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example:8360",
        "192.168.1.20:8360",
        "localhost.example",
        "127.0.0.1.example",
        "",
        "[::1",
        "0.0.0.0:8360",
        "@localhost@x",
    ],
)
def test_this_machine_answers_to_no_other_name(host: str) -> None:
    assert HERE.refusal(headers(host), {}) == WRONG_HOST


def test_a_request_says_once_whom_it_means() -> None:
    assert HERE.refusal(headers(), {}) == WRONG_HOST
    assert HERE.refusal(headers("localhost", "localhost"), {}) == WRONG_HOST


@pytest.mark.parametrize("host", ["192.168.1.20:8360", "[fe80::1]:8360", "board:8360", "Board.local:8360"])
def test_a_board_answers_to_addresses_and_its_names_with_the_token(host: str) -> None:
    assert THERE.refusal(headers(host), TOKEN) is None
    assert THERE.refusal(headers(host), {}) == NO_TOKEN
    assert THERE.refusal(headers(host), {"token": "Secret"}) == NO_TOKEN


def test_a_name_that_was_bent_to_the_board_is_refused_even_with_the_token() -> None:
    assert THERE.refusal(headers("rebound.example:8360"), TOKEN) == WRONG_HOST


def test_only_the_own_page_may_open_a_connection() -> None:
    assert HERE.refusal(headers("localhost:8360", origin="http://localhost:8360"), {}) is None
    for origin in (
        "http://elsewhere.example",
        "http://localhost:9999",
        "null",
        "",
        "file://",
        "http://[",
        "http://localhost:8360.example",
    ):
        assert HERE.refusal(headers("localhost:8360", origin=origin), {}) == WRONG_ORIGIN
    assert THERE.refusal(headers("board:8360", origin="http://elsewhere.example"), TOKEN) == WRONG_ORIGIN


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)), st.text())
def test_whatever_is_asked_is_answered(host: str, origin: str, token: str) -> None:
    assert THERE.refusal(headers(host, origin=origin), {"token": token}) in (WRONG_HOST, WRONG_ORIGIN, NO_TOKEN)


def test_a_token_is_asked_for_unless_only_this_machine_can_ask() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert is_loopback(host)
        assert gate_for(host).token is None
    for host in ("0.0.0.0", "::", "192.168.1.20", "board.local"):
        assert not is_loopback(host)
        token = gate_for(host).token
        assert token is not None
        assert len(token) >= 20
        assert token != gate_for(host).token
    assert "board.local" in gate_for("Board.local").names
