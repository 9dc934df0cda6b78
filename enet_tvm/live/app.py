"""The ASGI application: the page at ``/``, and a WebSocket at ``/watch``.

It first sends ``about`` as JSON, then ``figures`` as JSON every half second and pictures as `enet_tvm.live.encoding` describes
them. The other side sends the text ``drawn`` whenever it has drawn a picture; anything else ends the connection.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from enet_tvm.live.access import Gate
from enet_tvm.live.figures import INTERVAL
from enet_tvm.live.hub import Hub, Viewer
from enet_tvm.live.session import LiveSession, to_text

DRAWN = "drawn"
_REFUSED = 1008
"""Close code of a refused WebSocket: RFC 6455's policy violation."""


def build_app(session: LiveSession, gate: Gate) -> Starlette:
    """Return the ASGI application that shows a session; it starts the session, and leaves closing it to who made it."""
    hub = Hub()
    page = _page()

    async def show_page(request: Request) -> Response:
        if (refusal := gate.refusal(request.headers, request.query_params)) is not None:
            return PlainTextResponse(refusal + "\n", 403)
        return HTMLResponse(page, headers=_headers(page))

    async def watch(socket: WebSocket) -> None:
        if gate.refusal(socket.headers, socket.query_params) is not None:
            await socket.close(_REFUSED)
            return
        await socket.accept()
        with hub.viewer() as viewer:
            sender = asyncio.create_task(_send(socket, session, viewer))
            try:
                await _receive(socket, viewer)
            finally:
                sender.cancel()

    @asynccontextmanager
    async def run(_: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def call(function: Callable[..., None], *arguments: object) -> None:
            with suppress(RuntimeError):  # of a loop that has ended, before the session has
                loop.call_soon_threadsafe(function, *arguments)

        session.start(lambda: hub.hungry, lambda message: call(hub.show, message), lambda: call(hub.finish))
        figures = asyncio.create_task(_measure(session, hub))
        yield
        figures.cancel()

    return Starlette(routes=[Route("/", show_page), WebSocketRoute("/watch", watch)], lifespan=run)


async def _send(socket: WebSocket, session: LiveSession, viewer: Viewer) -> None:
    try:
        await socket.send_text(to_text("about", dataclasses.asdict(session.about)))
        while True:
            update = await viewer.next()
            if update.figures is not None:
                await socket.send_text(update.figures)
            if update.picture is not None:
                await socket.send_bytes(update.picture)
    except (WebSocketDisconnect, RuntimeError):
        pass  # it has left, which who receives from it is told too


async def _receive(socket: WebSocket, viewer: Viewer) -> None:
    """Take note of what a viewer has drawn until it leaves, or says what nobody asked."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") != DRAWN:
            await socket.close(_REFUSED)
            return
        viewer.drawn()


async def _measure(session: LiveSession, hub: Hub) -> None:
    while True:
        if len(hub):
            hub.tell(to_text("figures", await asyncio.to_thread(session.figures, len(hub))))
        await asyncio.sleep(INTERVAL)


def _page() -> str:
    return (resources.files("enet_tvm.live") / "page.html").read_text(encoding="utf-8")


def _headers(page: str) -> dict[str, str]:
    """Return headers that let the page's own script and style run and nothing else, and no other page hold it in a frame."""
    allowed = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
