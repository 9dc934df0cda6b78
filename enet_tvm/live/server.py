"""The server of the page, on a thread of its own: whoever starts it keeps the signals."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

import psutil
import uvicorn

from enet_tvm.errors import UserError
from enet_tvm.live.access import Gate, is_loopback
from enet_tvm.live.app import build_app
from enet_tvm.live.session import LiveSession

_LONGEST_MESSAGE = 1024
"""Largest message from a viewer in bytes; it has one word to say."""

_FAREWELL = 0.5
"""Seconds in which connections may end in good order."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 takes a free one.

    Raises
    ------
    UserError
        When it cannot.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}); is something running there already? Choose another --port or --host"
        ) from error


class LiveServer:
    """Serves a session's page until `close`, or the end of a ``with`` block.

    Parameters
    ----------
    session : LiveSession
        Session that is shown; the server starts it.
    listener : socket.socket
        Socket that listens; it belongs to the server.
    gate : Gate
        Access rules for viewers.
    """

    def __init__(self, session: LiveSession, listener: socket.socket, gate: Gate) -> None:
        self._listener = listener
        config = uvicorn.Config(
            build_app(session, gate),
            access_log=False,  # it would show the token
            log_config=None,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            ws="websockets-sansio",
            ws_max_size=_LONGEST_MESSAGE,
            ws_per_message_deflate=False,  # pictures are compressed already
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="enet-tvm-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server and every connection."""
        self._server.should_exit = True
        self._thread.join(_FAREWELL)
        self._server.force_exit = True  # a viewer that takes nothing more is not waited for
        self._thread.join()
        with contextlib.suppress(OSError):
            self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def page_addresses(listener: socket.socket, gate: Gate) -> list[str]:
    """Return the addresses at which browsers find the page, each with the token; several where all networks are listened to."""
    host, port = listener.getsockname()[:2]
    query = "" if gate.token is None else f"?token={gate.token}"
    return [f"http://{f'[{name}]' if ':' in name else name}:{port}/{query}" for name in _names(host, listener.family)]


def _names(host: str, family: socket.AddressFamily) -> list[str]:
    if host not in ("0.0.0.0", "::"):
        return [host]
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == family and not is_loopback(address.address) and "%" not in address.address
    ]
    return found or [socket.gethostname()]
