"""Access to the live page: denied to pages of other sites and to rebound DNS names, and from elsewhere without the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers

WRONG_HOST = "this server does not answer to that name; open the address that 'enet-tvm live' printed"
WRONG_ORIGIN = "pages of other sites may not look; open the address that 'enet-tvm live' printed"
NO_TOKEN = "the address lacks the token, or has that of an earlier start; open the address that 'enet-tvm live' printed last"


@dataclass(frozen=True)
class Gate:
    """Decides on requests by their headers and their address.

    Attributes
    ----------
    token : str or None
        Token that the address must hold as ``?token=...``; None where only this machine can ask.
    names : frozenset of str
        Names that the server goes by, in small letters. Addresses need not be named: what DNS rebinding bends is a name.
    """

    token: str | None
    names: frozenset[str] = field(default=frozenset({"localhost"}))

    def refusal(self, headers: Headers, query: Mapping[str, str]) -> str | None:
        """Return in a sentence why a request is refused, None when it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return WRONG_HOST
        # Browsers say with every WebSocket which page opens it; other programs say nothing, and need the token as well.
        if any(_authority(origin) != hosts[0].lower() for origin in headers.getlist("origin")):
            return WRONG_ORIGIN
        if self.token is not None and not hmac.compare_digest(query.get("token", "").encode(), self.token.encode()):
            return NO_TOKEN
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        address = _address(name)
        if address is None:
            return name in self.names
        return self.token is not None or address.is_loopback


def gate_for(host: str) -> Gate:
    """Return the gate of a server that listens on `host`: with a new random token unless only this machine can reach that."""
    if is_loopback(host):
        return Gate(None)
    own = socket.gethostname().lower()
    return Gate(
        secrets.token_urlsafe(16), frozenset({"localhost", host.lower(), own, f"{own}.local", socket.getfqdn().lower()})
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
