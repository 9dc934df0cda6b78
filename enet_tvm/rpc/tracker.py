"""The tracker: devices say here that they are free, clients ask here for one.

One process, one event loop, Python's standard library. It speaks the protocol of ``tvm.rpc.tracker`` and adds to its
summary whether each device is free.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.messages import ProtocolError, Put, Query, Registration, Request, TrackerCode, parse_json, parse_request
from enet_tvm.rpc.wire import TRACKER_MAGIC, decode, keep_alive, pack_int, pack_text

_SILENCE_SECONDS = 25
"""Seconds of silence after which a board that has lost its power or its network is forgotten."""
_GREETING_SECONDS = 3.0
_MESSAGE_SECONDS = 5.0
"""Seconds for a message to be complete once it has begun."""
_ANSWER_SECONDS = 20.0
"""Seconds for an answer to be taken: what waits for a peer that does not read is kept in memory."""
_BACKLOG = 128

# What is kept, so that the summary of it all stays below what clients accept (`enet_tvm.rpc.wire.MAX_MESSAGE`).
MOST_PEERS = 500
MOST_WAITING = 500
_MOST_OFFERS = 16
"""Largest number of offers of one peer; the oldest is dropped for a new one."""
_LONGEST_MESSAGE = 1 << 14
"""Longest message of a peer, in bytes."""


class _Peer:
    """One connection: a device's server, or a client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.host: str = (writer.get_extra_info("peername") or ("",))[0]
        self.registration: Registration | None = None
        self.offers: dict[str, Put] = {}
        """Offers that nobody has taken, by match key."""

    def send(self, value: Any) -> None:
        self._writer.write(pack_text(json.dumps(value)))

    def close(self) -> None:
        self._writer.transport.abort()


class Tracker:
    """Which devices there are, which of them are free, and who waits for one."""

    def __init__(self) -> None:
        self._peers: dict[_Peer, bool] = {}
        """Every connection, oldest first, and whether it has said that it is a peer of trackers."""
        self._waiting: dict[str, list[tuple[int, int, _Peer]]] = {}
        self._order = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends, or says what no peer says."""
        peer = _Peer(writer)
        if len(self._peers) >= MOST_PEERS and not self._make_room():
            peer.close()
            return
        self._peers[peer] = False
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if (connection := writer.get_extra_info("socket")) is not None:
                keep_alive(connection, _SILENCE_SECONDS)
            (magic,) = struct.unpack("<i", await asyncio.wait_for(reader.readexactly(4), _GREETING_SECONDS))
            if magic != TRACKER_MAGIC:
                return
            writer.write(pack_int(TRACKER_MAGIC))
            self._peers[peer] = True
            while True:
                first = await reader.readexactly(1)
                self._answer(peer, await asyncio.wait_for(_rest(reader, first), _MESSAGE_SECONDS))
                await asyncio.wait_for(writer.drain(), _ANSWER_SECONDS)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return
        finally:
            self._forget(peer)
            peer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        """End every connection."""
        for peer in list(self._peers):
            peer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    def _make_room(self) -> bool:
        """End the oldest connection of which nothing is kept, first of those that have not said what they are."""
        waiting = {peer for queue in self._waiting.values() for _, _, peer in queue}
        idle = [peer for peer in self._peers if not (peer.registration or peer.offers or peer in waiting)]
        peer = next((peer for peer in idle if not self._peers[peer]), idle[0] if idle else None)
        if peer is None:
            return False
        self._forget(peer)
        peer.close()
        return True

    def _forget(self, peer: _Peer) -> None:
        self._peers.pop(peer, None)
        for key, queue in list(self._waiting.items()):
            left = [waiting for waiting in queue if waiting[2] is not peer]
            if len(left) < len(queue):
                heapq.heapify(left)
                self._waiting[key] = left
            if not left:
                del self._waiting[key]

    def _answer(self, peer: _Peer, message: Put | Request | Registration | Query) -> None:
        if peer not in self._peers:
            return  # it had to make room
        if isinstance(message, Put):
            peer.offers[message.match_key] = message
            if len(peer.offers) > _MOST_OFFERS:
                del peer.offers[next(iter(peer.offers))]
            peer.send(TrackerCode.SUCCESS)
            self._match(message.key)
        elif isinstance(message, Request):
            if sum(map(len, self._waiting.values())) >= MOST_WAITING:
                raise ProtocolError("too many wait already")
            heapq.heappush(self._waiting.setdefault(message.key, []), (-message.priority, next(self._order), peer))
            self._match(message.key)
        elif isinstance(message, Registration):
            peer.registration = message
            peer.send(TrackerCode.SUCCESS)
        elif message.code == TrackerCode.SUMMARY:
            peer.send([TrackerCode.SUCCESS, self.summary()])
        elif message.code == TrackerCode.GET_PENDING_MATCHKEYS:
            peer.send(list(peer.offers))
        else:
            peer.send(TrackerCode.SUCCESS if message.code == TrackerCode.PING else TrackerCode.FAIL)

    def _match(self, key: str) -> None:
        """Give free devices of a key to those who wait for one: highest priority first, then first come."""
        while queue := self._waiting.get(key):
            found = next(((peer, offer) for peer in self._peers for offer in peer.offers.values() if offer.key == key), None)
            if found is None:
                return
            server, offer = found
            del server.offers[offer.match_key]
            client = heapq.heappop(queue)[2]
            if not queue:
                del self._waiting[key]
            client.send([TrackerCode.SUCCESS, [offer.host or server.host, offer.port, offer.match_key]])

    def summary(self) -> dict[str, Any]:
        """Return the devices (key, address, whether free), and of each key how many are free and how many wait."""
        registered = [(peer, peer.registration) for peer in self._peers if peer.registration is not None]
        servers = [(peer, said) for peer, said in registered if said.key.startswith("server:")]
        keys = {said.key.partition(":")[2] for _, said in servers} | set(self._waiting)
        free = Counter(offer.key for peer, _ in servers for offer in peer.offers.values())
        return {
            "queue_info": {key: {"free": free[key], "pending": len(self._waiting.get(key, []))} for key in keys},
            "server_info": [
                {"key": said.key, "addr": [said.host or peer.host, said.port], "free": bool(peer.offers)}
                for peer, said in servers
            ],
        }


async def _rest(reader: asyncio.StreamReader, first: bytes) -> Put | Request | Registration | Query:
    """Return what a message means whose first byte has been read."""
    (size,) = struct.unpack("<i", first + await reader.readexactly(3))
    if not 0 < size <= _LONGEST_MESSAGE:
        raise ProtocolError(f"a message of {size} bytes was announced")
    return parse_request(parse_json(decode(await reader.readexactly(size))))


def run_tracker(host: str, port: int, ready: Callable[[int], None] = lambda _: None) -> None:
    """Run a tracker until SIGTERM or SIGINT.

    Parameters
    ----------
    host, port : str, int
        Host and port to listen on; port 0 takes a free one.
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
    tracker = Tracker()
    try:
        server = await asyncio.start_server(
            tracker.handle, host, port, family=socket.AF_UNSPEC, limit=_LONGEST_MESSAGE, backlog=_BACKLOG
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {Address(host, port)} ({error.strerror or error}); is a tracker running there already? "
            "Choose another --port or --host"
        ) from error
    ready(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()
    # Before the loop ends, which would cancel their tasks in the middle.
    await tracker.close()
