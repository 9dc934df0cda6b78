from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.rpc.address import Address
from enet_tvm.rpc.messages import (
    ProtocolError,
    Put,
    Query,
    Registration,
    Request,
    ServerEntry,
    TrackerCode,
    expect_success,
    parse_facts,
    parse_grant,
    parse_greeting,
    parse_json,
    parse_pending,
    parse_request,
    parse_summary,
)

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["", "key", "addr"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4))
NAMES = st.sampled_from(["key", "addr", "server_info", "queue_info", "free", "pending", "cpus", "model", "versions"])
SHAPED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner) | st.tuples(st.integers(-2, 8), inner, inner),
)
PARSERS = [expect_success, parse_grant, parse_pending, parse_request, parse_summary]


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        # As TVM's own server and client say it.
        ([3, "rpi4", [9090, "rpi4:0.5"], None], Put("rpi4", "rpi4:0.5", None, 9090)),
        ([3, "rpi4", [9090, "rpi4:0.5"], "10.0.0.7"], Put("rpi4", "rpi4:0.5", "10.0.0.7", 9090)),
        ([3, "rpi4", [9090, "rpi4:0.5"]], Put("rpi4", "rpi4:0.5", None, 9090)),
        ([4, "rpi4", "", 1], Request("rpi4", 1)),
        ([5, {"key": "server:rpi4", "addr": [None, 9090]}], Registration("server:rpi4", None, 9090)),
        ([6], Query(TrackerCode.SUMMARY)),
        ([7], Query(TrackerCode.GET_PENDING_MATCHKEYS)),
        ([2, "stop key"], Query(TrackerCode.STOP)),
    ],
)
def test_requests(message: Any, meaning: Any) -> None:
    assert parse_request(message) == meaning


@pytest.mark.parametrize(
    "message",
    [
        *(None, 7, "", [], {}, [None], [True], [3.0], [8], [-2], ["3"], [[]], [{}], [10**30]),
        *(
            [3],
            [3, "k", 1],
            [3, "k", [1]],
            [3, "k", [0, "m"]],
            [3, "k", [65536, "m"]],
            [3, "k", [True, "m"]],
            [3, "k", [1, ""]],
        ),
        *([3, "k", [1]], [3, "k", [1, 2]]),
        *([3, "", [1, "m"]], [3, "k" * 101, [1, "m"]], [3, "k", [1, "m" * 257]], [3, "\x1b[2J", [1, "m"]]),
        *([3, "\ud800", [1, "m"]], [3, "k", [1, "m"], "a b"], [3, "k", [1, "m"], "a" * 300], [3, "k", [1, "m"], 7]),
        *([4], [4, "k", ""], [4, "k", "", "1"], [4, "k", "", float("inf")], [4, "k", "", 10**30], [4, None, "", 1]),
        *([5], [5, None], [5, {}], [5, {"key": "server:k"}], [5, {"key": "server:k", "addr": []}]),
        *([5, {"key": 7, "addr": [None, 1]}], [5, {"key": "server:k", "addr": [None, "1"]}]),
    ],
)
def test_no_requests(message: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_request(message)


@pytest.mark.parametrize("answer", [7, None, -1, "0", False, [0], {}, 0.0])
def test_no_success(answer: Any) -> None:
    with pytest.raises(ProtocolError, match="the tracker answered"):
        expect_success(answer)
    expect_success(0)


@pytest.mark.parametrize("answer", [7, None, -1, {}, "key", [7], [None], [["key"]]])
def test_no_pending_keys(answer: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_pending(answer)
    assert parse_pending(["a", "b"]) == ["a", "b"]


def test_grant() -> None:
    assert parse_grant([0, ["10.0.0.7", 9090, "rpi4:0.5"]]) == (Address("10.0.0.7", 9090), "rpi4:0.5")
    for answer in (None, 7, [], [0], [-1, ["h", 1, "m"]], [0, None], [0, ["h", 1]], [0, [None, 1, "m"]], [0, ["a..b", 1, "m"]]):
        with pytest.raises(ProtocolError):
            parse_grant(answer)


def test_summary() -> None:
    good = {"key": "server:rpi4", "addr": ["10.0.0.7", 9090]}
    # Whoever registered these must not hide the others.
    bad = [7, None, {}, {**good, "key": 7}, {**good, "addr": "x"}, {**good, "addr": [None, 1]}, {**good, "free": "yes"}]
    answer = [0, {"server_info": [*bad, good, {**good, "free": True}], "queue_info": {"rpi4": {"free": 1, "pending": 2}}}]
    summary = parse_summary(answer)
    address = Address("10.0.0.7", 9090)
    assert summary.servers == (ServerEntry("rpi4", address, None), ServerEntry("rpi4", address, True))
    assert summary.free == {"rpi4": 1}
    assert summary.waiting == {"rpi4": 2}
    for broken in (None, 7, [], [0], [-1, answer[1]], [0, {}], [0, {**answer[1], "queue_info": {"k": {"free": "1"}}}]):
        with pytest.raises(ProtocolError):
            parse_summary(broken)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("client:rpi4:0.5", ("rpi4:0.5", None)),
        ("client:rpi4 -timeout=10", ("rpi4", 10.0)),
        ("client:rpi4 -timeout=1e400", ("rpi4", None)),
        ("client:rpi4 -timeout=nan", ("rpi4", None)),
        ("client:rpi4 -timeout=-5 -other=1", ("rpi4", None)),
        ("client:rpi4 -timeout=soon", ("rpi4", None)),
        ("", ("", None)),
        ("  ", ("", None)),
        ("client:", ("", None)),
        ("rpi4", ("", None)),
        ("server:rpi4", ("", None)),
    ],
)
def test_greetings(text: str, meaning: Any) -> None:
    assert parse_greeting(text) == meaning


def test_facts() -> None:
    said = {
        "model": "Pi\x1b[2J",
        "cpus": 4,
        "celsius": 51.5,
        "cpu_features": ["asimd"],
        "versions": {"a": "1"},
        "megahertz": [1500],
    }
    assert parse_facts(json.dumps(said)) == {**said, "model": r"Pi\x1b[2J"}
    wrong = {"model": 7, "cpus": True, "celsius": "hot", "cpu_features": [1], "versions": {"a": 1}, "megahertz": 5, "other": 1}
    assert parse_facts(json.dumps(wrong)) == {}
    assert parse_facts('{"cpus": -1, "celsius": NaN, "memory_mb": 1e999}') == {}
    for text in ("", "7", "null", "[]", "[" * 100_000):
        with pytest.raises(ProtocolError):
            parse_facts(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "nul", "[1] 2", "\x00"])
def test_no_json(text: str) -> None:
    with pytest.raises(ProtocolError, match="not JSON"):
        parse_json(text)


@pytest.mark.parametrize("parse", PARSERS)
@given(value=JSON | SHAPED)
def test_any_json_has_a_meaning_or_is_refused(parse: Callable[[Any], Any], value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        parse(json.loads(json.dumps(value)))


@given(JSON | SHAPED)
def test_any_facts(value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        parse_facts(json.dumps(value))


@given(st.text(max_size=40) | st.from_regex(r"\Aclient:\w* -timeout=[-+0-9e.naif]{0,6}\Z"))
def test_any_greeting(text: str) -> None:
    _, seconds = parse_greeting(text)
    assert seconds is None or 0 < seconds < float("inf")
