"""Addresses of trackers and servers, as every command and both servers read them. Only Python's standard library."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from enet_tvm.errors import UserError

DEFAULT_TRACKER_PORT = 9190
DEFAULT_SERVER_PORT = 9090

_ADDRESS = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, what: str = "tracker") -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or either without a port (9190, a tracker's) means.

    Raises
    ------
    UserError
        When it is not one.
    """
    text = text.strip()
    if (host := _bare_ipv6(text)) is not None:
        return Address(host, DEFAULT_TRACKER_PORT)
    match = _ADDRESS.fullmatch(text)
    host, port = (_host(match["host"]), int(match["port"] or DEFAULT_TRACKER_PORT)) if match else (None, 0)
    if host is None or not 0 < port < 1 << 16:
        raise UserError(f"the {what} is HOST:PORT, such as 192.168.1.10:{DEFAULT_TRACKER_PORT}, not '{text}'")
    return Address(host, port)


def parse_host(text: str, option: str) -> str:
    """Return the host that an option names: a name or an address without a port, an IPv6 one with or without brackets.

    Raises
    ------
    UserError
        When it is not one.
    """
    host = _host(text.strip())
    if host is None:
        raise UserError(f"{option} is a host's name or address, without a port, such as 192.168.1.20, not '{text}'")
    return host


def is_host(text: str) -> bool:
    """Return whether a text can be a host's name or address, so that looking it up cannot fail but by its not being there."""
    return _bare_ipv6(text) is not None or _is_name(text)


def _host(text: str) -> str | None:
    if text.startswith("[") and text.endswith("]"):
        return _bare_ipv6(text[1:-1])
    return text if is_host(text) else None


def _bare_ipv6(text: str) -> str | None:
    if not re.fullmatch(r"[0-9A-Za-z:.%_-]{2,253}", text):
        return None
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return text


def _is_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(re.fullmatch(r"[0-9A-Za-z_-]{1,63}", label) for label in labels)
