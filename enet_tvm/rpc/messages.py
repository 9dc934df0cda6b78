"""Messages to and from a tracker, to a server and from a device: one strict parser for each.

Any peer may say anything. Each parser takes JSON as it was received, or a greeting's text, and returns what it means or raises
`ProtocolError`. Only Python's standard library, so that it can be used on a board.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from enet_tvm.rpc.address import Address, is_host
from enet_tvm.text import printable

LONGEST_KEY = 100
"""Longest name of a kind of device, in bytes."""
LONGEST_MATCH_KEY = 256
"""Longest key that a tracker gives to one client for one session, in bytes."""


LONGEST_KERNEL = 1000
"""Longest name of a kernel, in bytes."""


class ProtocolError(ConnectionError):
    """A message of a peer that does not follow the protocol."""


class TrackerCode(IntEnum):
    """First element of a message to a tracker, or of its answer."""

    FAIL = -1
    SUCCESS = 0
    PING = 1
    STOP = 2
    PUT = 3
    REQUEST = 4
    UPDATE_INFO = 5
    SUMMARY = 6
    GET_PENDING_MATCHKEYS = 7


@dataclass(frozen=True)
class Put:
    """A device is free: whoever shows it the match key gets it. A host of None is the one that the message came from."""

    key: str
    match_key: str
    host: str | None
    port: int


@dataclass(frozen=True)
class Request:
    """A client wants a device; a higher priority is served first."""

    key: str
    priority: int


@dataclass(frozen=True)
class Registration:
    """A server is there. `key` is ``server:NAME``; a host of None is the one that the message came from."""

    key: str
    host: str | None
    port: int


@dataclass(frozen=True)
class Query:
    """A message that consists of its code alone."""

    code: TrackerCode


@dataclass(frozen=True)
class ServerEntry:
    """A server in a tracker's summary; `free` is None where the tracker does not say it."""

    key: str
    address: Address
    free: bool | None


@dataclass(frozen=True)
class Summary:
    """A tracker's summary: servers, and by key the numbers of free devices and of waiting clients."""

    servers: tuple[ServerEntry, ...]
    free: dict[str, int]
    waiting: dict[str, int]


def parse_json(text: str) -> Any:
    """Return a JSON value, however a peer made it up.

    Raises
    ------
    ProtocolError
        When it is none, or nested deeper than anything that is meant.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message is not JSON") from error


# To a tracker


def parse_request(message: Any) -> Put | Request | Registration | Query:
    """Return what a message to a tracker means.

    Raises
    ------
    ProtocolError
        When it is none.
    """
    code, *rest = _list(message, "a message")
    if type(code) is not int or code not in list(TrackerCode):
        raise _nonsense("a message's code", code)
    if code == TrackerCode.PUT and len(rest) in (2, 3):
        key, offer, *host = rest
        port, match_key = _list(offer, "an offer", 2)
        return Put(_name(key, LONGEST_KEY), _name(match_key, LONGEST_MATCH_KEY), _host(*(host or [None])), _port(port))
    if code == TrackerCode.REQUEST and len(rest) == 3:
        key, _user, priority = rest
        return Request(_name(key, LONGEST_KEY), _integer(priority, -(1 << 31), 1 << 31))
    if code == TrackerCode.UPDATE_INFO and len(rest) == 1:
        info = _dict(rest[0], "what a server says of itself")
        host, port = _list(info.get("addr"), "an address", 2)
        return Registration(_name(info.get("key"), len("server:") + LONGEST_KEY), _host(host), _port(port))
    if code in (TrackerCode.PUT, TrackerCode.REQUEST, TrackerCode.UPDATE_INFO):
        raise _nonsense("a message", message)
    return Query(TrackerCode(code))


# From a tracker


def expect_success(answer: Any) -> None:
    """Refuse every answer but success."""
    if type(answer) is not int or answer != TrackerCode.SUCCESS:
        raise ProtocolError(f"the tracker answered {_shown(answer)}")


def parse_pending(answer: Any) -> list[str]:
    """Return the match keys that nobody has taken yet."""
    pending = _list(answer, "the list of pending keys")
    if not all(isinstance(key, str) for key in pending):
        raise _nonsense("the list of pending keys", answer)
    return pending


def parse_grant(answer: Any) -> tuple[Address, str]:
    """Return the address of the device that a client got, and the key to show there."""
    code, grant = _list(answer, "the answer to a request", 2)
    expect_success(code)
    host, port, match_key = _list(grant, "a device", 3)
    if (host := _host(host)) is None:
        raise _nonsense("a device", grant)
    return Address(host, _port(port)), _name(match_key, LONGEST_MATCH_KEY)


def parse_summary(answer: Any) -> Summary:
    """Return what a tracker knows; a server whose entry makes no sense is left out, as anybody can register one."""
    code, summary = _list(answer, "the answer to a question", 2)
    expect_success(code)
    summary = _dict(summary, "a summary")
    servers = []
    for entry in _list(summary.get("server_info"), "the list of servers"):
        try:
            servers.append(_server(entry))
        except ProtocolError:
            continue
    free, waiting = {}, {}
    for key, counts in _dict(summary.get("queue_info"), "the queues").items():
        counts = _dict(counts, "a queue")
        free[key] = _integer(counts.get("free"), 0, 1 << 31)
        waiting[key] = _integer(counts.get("pending"), 0, 1 << 31)
    return Summary(tuple(servers), free, waiting)


def _server(entry: Any) -> ServerEntry:
    entry = _dict(entry, "a server")
    key, free = entry.get("key"), entry.get("free")
    host, port = _list(entry.get("addr"), "an address", 2)
    host = _host(host)
    if not isinstance(key, str) or host is None or not (free is None or isinstance(free, bool)):
        raise _nonsense("a server", entry)
    return ServerEntry(key.partition(":")[2], Address(host, _port(port)), free)


# To a server


def parse_greeting(text: str) -> tuple[str, float | None]:
    """Return the key that a client shows, ``client:KEY -timeout=SECONDS``, and the seconds that it wants; None for no limit.

    A text that is no greeting is one with an empty key, which no server waits for.
    """
    words = text.split()
    prefix, colon, key = words[0].partition(":") if words else ("", "", "")
    seconds = None
    for word in words[1:]:
        if word.startswith("-timeout="):
            try:
                wanted = float(word.removeprefix("-timeout="))
            except ValueError:
                continue
            seconds = wanted if wanted > 0 and math.isfinite(wanted) else None
    return (key if prefix == "client" and colon else ""), seconds


# From a device, in a session


def parse_facts(text: str) -> dict[str, Any]:
    """Return what a device says of itself (`enet_tvm.rpc.session_process.device_facts`); what has another type is left out.

    Raises
    ------
    ProtocolError
        When it is no JSON object.
    """
    said = _dict(parse_json(text), "what the device says of itself")
    facts: dict[str, Any] = {}
    for kind, names in _FACTS.items():
        facts |= {name: _fact(said[name]) for name in names if name in said and kind(said[name])}
    return facts


def parse_kernel_times(text: str) -> list[tuple[str, float]]:
    """Return the name and the seconds of every kernel of a forward pass on a device.

    Raises
    ------
    ProtocolError
        When it is no list of pairs of a name and a number.
    """
    pairs = [_list(pair, "a kernel's time", 2) for pair in _list(parse_json(text), "the kernels' times")]
    for _, seconds in pairs:
        if not _is_number(seconds) or seconds < 0:
            raise _nonsense("a kernel's time", seconds)
    return [(_name(kernel, LONGEST_KERNEL), float(seconds)) for kernel, seconds in pairs]


def parse_kernel_names(text: str) -> list[str]:
    """Return the names of the kernels of a forward pass on a device.

    Raises
    ------
    ProtocolError
        When it is no list of names.
    """
    return [_name(kernel, LONGEST_KERNEL) for kernel in _list(parse_json(text), "the kernels' names")]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_FACTS: dict[Callable[[Any], bool], tuple[str, ...]] = {
    _is_text: ("model", "architecture", "system", "governor"),
    lambda value: type(value) is int and 0 < value < 1 << 16: ("cpus",),
    _is_number: ("celsius", "peak_memory_mb", "memory_mb", "free_disk_mb"),
    lambda value: isinstance(value, list) and all(map(_is_text, value)): ("cpu_features",),
    lambda value: isinstance(value, list) and all(map(_is_number, value)): ("megahertz",),
    lambda value: isinstance(value, dict) and all(map(_is_text, value.values())): ("versions",),
}
"""Names of facts by the check that their values must pass."""


def _fact(value: Any) -> Any:
    """Return a fact whose texts can be shown."""
    if isinstance(value, str):
        return printable(value, 200)
    if isinstance(value, list):
        return [_fact(part) for part in value]
    return {key: _fact(part) for key, part in value.items()} if isinstance(value, dict) else value


def _list(value: Any, what: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (len(value) != length if length is not None else what == "a message" and not value):
        raise _nonsense(what, value)
    return value


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _nonsense(what, value)
    return value


def _integer(value: Any, least: int, end: int) -> int:
    # A truth value is an int to Python, not to JSON.
    if type(value) is not int or not least <= value < end:
        raise _nonsense("a number", value)
    return value


def _port(value: Any) -> int:
    return _integer(value, 1, 1 << 16)


def _name(value: Any, longest: int) -> str:
    # Neither control characters nor lone surrogates are printable.
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.encode("utf-8")) <= longest:
        raise _nonsense("a key", value)
    return value


def _host(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_host(value):
        raise _nonsense("a host", value)
    return value


def _nonsense(what: str, value: Any) -> ProtocolError:
    return ProtocolError(f"{what} is {_shown(value)}")


def _shown(value: Any) -> str:
    """Return a JSON value in a few printable characters."""
    if isinstance(value, Sequence | dict) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return ascii(value[:40] if isinstance(value, str) else value)[:60]
