"""A server of the page, sources and viewers, for the tests of `enet_tvm.live`."""

from __future__ import annotations

import faulthandler
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from enet_tvm.live.server import LiveServer
from enet_tvm.live.session import LiveSession
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame
from enet_tvm.video.library import pyav
from enet_tvm.video.source import VideoSource

SIZE = Size(96, 64)
RATE = Fraction(20)


def picture(index: int) -> np.ndarray:
    """A frame whose colour says its number, with a square that moves."""
    pixels = np.full((SIZE.height, SIZE.width, 3), (40, (37 * index) % 256, 200), np.uint8)
    left = (4 * index) % (SIZE.width - 16)
    pixels[16:48, left : left + 16] = (255, 220, 30)
    return pixels


class Camera:
    """A source that is generated, as a `VideoSource` reads one: at its own pace, or whenever `shoot` is called."""

    audio = None
    broken = 0

    def __init__(self, frames: int | None = None, paced: bool = True, failure: Exception | None = None) -> None:
        self._frames, self._paced, self._failure = frames, paced, failure
        self._triggers: queue.Queue[bool] = queue.Queue()
        self.closed = threading.Event()
        self.closed_by: str | None = None

    def source(self) -> VideoSource:
        return VideoSource("camera", True, SIZE, RATE, None, self)

    def shoot(self) -> None:
        self._triggers.put(True)

    def end(self) -> None:
        self._triggers.put(False)

    def iterate(self) -> Iterator[Frame]:
        index = 0
        while self._frames is None or index < self._frames:
            if self._paced:
                time.sleep(float(1 / RATE))
            elif not self._triggers.get():
                break
            image = pyav().VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
            image.pts, image.time_base = index, 1 / RATE
            yield Frame(index, image)
            index += 1
        if self._failure is not None:
            raise self._failure

    def take_audio(self) -> list[Any]:
        return []

    def close(self) -> None:
        self.closed_by = threading.current_thread().name
        self.closed.set()


class Watcher:
    """A viewer without a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.about: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}

    def receive(self, seconds: float = 30) -> tuple[dict[str, Any], bytes, bytes] | None:
        """Take the next message; return header, JPEG and PNG if it is a picture."""
        message = self.connection.recv(timeout=seconds)
        if isinstance(message, str):
            values = json.loads(message)
            setattr(self, values["kind"], values)
            return None
        length = int.from_bytes(message[:4], "big")
        header = json.loads(message[4 : 4 + length])
        end = 4 + length + header["jpeg"]
        return header, message[4 + length : end], message[end:]

    def picture(self, seconds: float = 30) -> tuple[dict[str, Any], bytes, bytes]:
        """Take messages until one is a picture, say that it is drawn, and return it."""
        end = time.monotonic() + seconds
        while (found := self.receive(seconds)) is None:
            if time.monotonic() > end:
                faulthandler.dump_traceback(all_threads=True)
                raise AssertionError(f"no picture in {seconds} s; the figures say {self.figures}")
        self.connection.send("drawn")
        return found

    def receive_until_closed(self, seconds: float = 30) -> None:
        """Take messages until the server has closed the connection."""
        try:
            while True:
                self.receive(seconds)
        except ConnectionClosed:
            pass

    def wait_for_figures(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not (self.figures and condition(self.figures)):
            assert time.monotonic() < end, self.figures
            if self.receive(seconds) is not None:
                self.connection.send("drawn")
        return self.figures


@dataclass
class Live:
    """A running server."""

    session: LiveSession
    segmenter: Segmenter
    server: LiveServer
    address: str
    passes: list[float]
    """When each forward pass began."""
    stack: ExitStack

    @property
    def port(self) -> int:
        return int(self.address.split(":")[-1].split("/")[0])

    def shoot(self, camera: Camera) -> None:
        """Let a camera give a frame as soon as a viewer can take it: that one has drawn pictures says nothing of the server."""
        end = time.monotonic() + 30
        while not self.session.wanted:
            assert time.monotonic() < end, "no viewer can take a picture"
            time.sleep(0.001)
        camera.shoot()

    def connect(self, query: str = "", **options: Any) -> ClientConnection:
        address = self.address.replace("http://", "ws://").partition("?")[0] + "watch" + query
        options = {"max_size": None, "open_timeout": 30, "compression": None, **options}
        return self.stack.enter_context(connect(address, **options))

    def watch(self, query: str = "", **options: Any) -> Watcher:
        return Watcher(self.connect(query, **options))

    def get(self, path: str = "", headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        request = urllib.request.Request(self.address.partition("?")[0] + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)
