"""The live command: opens the source and the network, and serves the page until a signal ends it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from enet_tvm.errors import UserError
from enet_tvm.live.access import gate_for
from enet_tvm.live.pacing import paced
from enet_tvm.live.server import LiveServer, listen, page_addresses
from enet_tvm.live.session import LiveSession
from enet_tvm.runtime.overlay import check_opacity
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.size import Size
from enet_tvm.video.opening import open_source
from enet_tvm.video.source import VideoSource


@dataclass(frozen=True)
class LiveRequest:
    """A request to show a source live: network, source and address.

    Attributes
    ----------
    artifact : Path
        Directory of the compiled network.
    video : str or None
        File, folder or address of the video; None for a camera.
    camera : str or None
        Number, device or address of a camera, in the place of a video.
    camera_size : Size or None
        Size of frames that the camera is asked for.
    rate : int or None
        Frames a second that the camera is asked for, or that a folder's pictures are shown at.
    loop : bool
        Whether a file begins anew at its end.
    host, port : str, int
        Host and port to listen on.
    opacity : float
        Opacity of the colours when the page opens, 0 to 1.
    threads : int or None
        Number of threads of the network; None for the default.
    """

    artifact: Path
    video: str | None = None
    camera: str | None = None
    camera_size: Size | None = None
    rate: int | None = None
    loop: bool = False
    host: str = "127.0.0.1"
    port: int = 8360
    opacity: float = 0.5
    threads: int | None = None

    def open_source(self) -> VideoSource:
        """Open the source as one that gives frames at its own speed.

        Raises
        ------
        UserError
            When there is none, or it cannot be opened, or begun anew.
        """
        if self.video is None and self.camera is None:
            raise UserError("there is nothing to show; give --camera 0, a video file, or the address of a stream")

        def open_it() -> VideoSource:
            return open_source([] if self.video is None else [self.video], self.camera, size=self.camera_size, rate=self.rate)

        source = open_it()
        if not source.live:
            return paced(source, open_it if self.loop else None)
        if self.loop:
            source.close()
            raise UserError(f"{source.name} goes on by itself; --loop is for files, leave it out")
        return source


def show_live(request: LiveRequest, say: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM, also after the source has ended.

    Parameters
    ----------
    request : LiveRequest
        Network, source and address of the page.
    say : callable
        Takes each line for whoever started it.

    Raises
    ------
    UserError
        When the address is taken, the network or the source cannot be had; at the end, when the source broke off.
    """
    check_opacity(request.opacity)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(request.host, request.port))
        segmenter = stack.enter_context(Segmenter.load(request.artifact, request.threads))
        source = request.open_source()
        try:
            name = request.artifact.resolve().name
            session = LiveSession(
                segmenter, source, name, request.opacity, lambda sentence: say(f"{sentence}; the page keeps the last picture")
            )
        except BaseException:
            source.close()
            raise
        gate = gate_for(request.host)
        stop = stack.enter_context(_signals())
        with LiveServer(session, listener, gate):
            for address in page_addresses(listener, gate):
                say(f"{request.artifact} live at {address}")
            if gate.token is None:
                say("only this machine can look; for others, give --host 0.0.0.0")
            say("stop it with Ctrl-C")
            stop.wait()
        session.close()
    if session.error is not None:
        raise session.error


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Set the event that is returned upon SIGINT or SIGTERM; a second one has its usual effect."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()
