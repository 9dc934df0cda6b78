"""The tracker: devices say here that they are free, clients ask here for one.

One process, one event loop, Python's standard library. It speaks the protocol of ``tvm.rpc.tracker`` and adds to its
summary whether each device is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.rpc.wire import MAX_MESSAGE, TRACKER_MAGIC, TrackerCode, keep_alive, pack_int, pack_text

_SILENCE_SECONDS = 25
"""After which a board that has lost its power or its network is forgotten."""


class _Peer:
    """One connection: a device's server, or a client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.host: str = (writer.get_extra_info("peername") or ("",))[0]
        self.info: dict[str, Any] = {}
        self.offers: dict[str, tuple[str, str, int]] = {}
        """Key, host and port of each match key that it has put and nobody has taken."""
        self.closed = False

    def send(self, value: Any) -> None:
        self._writer.write(pack_text(json.dumps(value)))


class Tracker:
    """Which devices there are, which of them are free, and who waits for one."""

    def __init__(self) -> None:
        self._peers: set[_Peer] = set()
        self._waiting: dict[str, list[tuple[int, int, _Peer]]] = {}
        self._order = itertools.count()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        if (connection := writer.get_extra_info("socket")) is not None:
            keep_alive(connection, _SILENCE_SECONDS)
        peer = _Peer(writer)
        try:
            (magic,) = struct.unpack("<i", await asyncio.wait_for(reader.readexactly(4), 10))
            if magic != TRACKER_MAGIC:
                return
            writer.write(pack_int(TRACKER_MAGIC))
            self._peers.add(peer)
            while True:
                (size,) = struct.unpack("<i", await reader.readexactly(4))
                if not 0 < size <= MAX_MESSAGE:
                    return
                self._answer(peer, json.loads(await reader.readexactly(size)))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError, TypeError, LookupError):
            return  # gone, or it says what no peer says: its connection ends here
        finally:
            peer.closed = True
            self._peers.discard(peer)
            with contextlib.suppress(OSError):
                writer.close()

    def _answer(self, peer: _Peer, message: list[Any]) -> None:
        code = TrackerCode(message[0])
        if code == TrackerCode.PUT:
            key, (port, match_key) = str(message[1]), message[2]
            host = message[3] if len(message) > 3 and message[3] else peer.host
            peer.offers[str(match_key)] = (key, str(host), int(port))
            peer.send(TrackerCode.SUCCESS)
            self._match(key)
        elif code == TrackerCode.REQUEST:
            key, priority = str(message[1]), int(message[3])
            heapq.heappush(self._waiting.setdefault(key, []), (-priority, next(self._order), peer))
            self._match(key)
        elif code == TrackerCode.UPDATE_INFO:
            info = dict(message[1])
            host, port = info["addr"]
            peer.info.update(info, addr=[host or peer.host, port])
            peer.send(TrackerCode.SUCCESS)
        elif code == TrackerCode.SUMMARY:
            peer.send([TrackerCode.SUCCESS, self.summary()])
        elif code == TrackerCode.GET_PENDING_MATCHKEYS:
            peer.send(list(peer.offers))
        else:
            peer.send(TrackerCode.SUCCESS if code == TrackerCode.PING else TrackerCode.FAIL)

    def _match(self, key: str) -> None:
        """Give free devices of a key to those who wait for one: highest priority first, then first come."""
        waiting = self._waiting.get(key, [])
        while waiting:
            if waiting[0][2].closed:
                heapq.heappop(waiting)
                continue
            found = next(
                ((peer, match, offer) for peer in self._peers for match, offer in peer.offers.items() if offer[0] == key), None
            )
            if found is None:
                return
            server, match_key, (_, host, port) = found
            del server.offers[match_key]
            heapq.heappop(waiting)[2].send([TrackerCode.SUCCESS, [host, port, match_key]])

    def summary(self) -> dict[str, Any]:
        """Return the devices (key, address, whether free), and of each key how many are free and how many wait."""
        servers = [peer for peer in self._peers if str(peer.info.get("key", "")).startswith("server:")]
        keys = {str(peer.info["key"]).partition(":")[2] for peer in servers} | set(self._waiting)
        queues = {
            key: {
                "free": sum(offer[0] == key for peer in servers for offer in peer.offers.values()),
                "pending": sum(not peer.closed for _, _, peer in self._waiting.get(key, [])),
            }
            for key in keys
        }
        return {
            "queue_info": queues,
            "server_info": [{**peer.info, "free": bool(peer.offers)} for peer in servers],
        }


def run_tracker(host: str, port: int, ready: Callable[[int], None] = lambda _: None) -> None:
    """Run a tracker until SIGTERM or SIGINT.

    Parameters
    ----------
    host, port : str, int
        Where to listen; port 0 takes a free one.
    ready : callable
        Called with the port once it listens.

    Raises
    ------
    UserError
        When it cannot listen there.
    """
    asyncio.run(_run(host, port, ready))


async def _run(host: str, port: int, ready: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        server = await asyncio.start_server(Tracker().handle, host, port, family=socket.AF_UNSPEC)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); is a tracker running there already? "
            "Choose another --port or --host"
        ) from error
    ready(server.sockets[0].getsockname()[1])
    await stop.wait()
    # Not `async with`, which would wait for every connection to end by itself.
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
