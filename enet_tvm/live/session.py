"""The live session: one source through the network, on threads of its own, shared by all viewers."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from enet_tvm.bench.machine.conditions import read_conditions
from enet_tvm.errors import UserError
from enet_tvm.live.encoding import MessageEncoder, shown_size
from enet_tvm.live.figures import About, History, machine_figures, stream_figures
from enet_tvm.runtime.overlay import check_opacity
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.runtime.stream import Stage, Stream
from enet_tvm.version import __version__
from enet_tvm.video.frame import Frame
from enet_tvm.video.session import LabelledFrame, label_frames, rate_alone
from enet_tvm.video.source import VideoSource

ENDED = "the video has ended"


@dataclasses.dataclass(frozen=True)
class _Shown:
    item: LabelledFrame
    message: bytes | None


class LiveSession:
    """A source through a segmenter, and the newest result for whoever asks.

    It begins with `start` and ends with the source, with `close`, or at the end of a ``with`` block.

    Parameters
    ----------
    segmenter : Segmenter
        Network that labels the frames; it may do nothing else until the session is closed.
    source : VideoSource
        Source of the frames, which gives them at its own speed; the session closes it, on the thread that reads it.
    artifact : str
        Name of the network on the page.
    opacity : float
        Opacity of the colours when the page opens, 0 to 1.
    ended : callable
        Takes a sentence when the source has ended, on the session's thread.

    Raises
    ------
    UserError
        When the opacity is not between 0 and 1.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        source: VideoSource,
        artifact: str,
        opacity: float = 0.5,
        ended: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        check_opacity(opacity)
        manifest = segmenter.manifest
        self._segmenter, self._source = segmenter, source
        self._encode = MessageEncoder(manifest.palette, opacity)
        self._wanted: Callable[[], bool] = lambda: False
        self._show: Callable[[bytes], None] = lambda _message: None
        self._finish: Callable[[], None] = lambda: None
        self._say_end = ended
        self._closing = False
        self._stream: Stream[_Shown] | None = None
        self._history = History()
        self._ended: str | None = None
        self.error: UserError | None = None
        """Error that broke the source off; None if nothing did."""
        self.about = About(
            artifact=artifact,
            network=manifest.network,
            target=manifest.target.name,
            source=source.name,
            classes=[
                {"name": name, "colour": list(colour)} for name, colour in zip(manifest.classes, manifest.palette, strict=True)
            ],
            lines=self._encode.lines,
            opacity=opacity,
            network_size=segmenter.size,
            source_size=source.size,
            shown_size=shown_size(source.size),
            rate=round(float(source.rate), 3),
            threads=segmenter.threads,
            alone_ms=round(1e3 / rate_alone([segmenter]), 1),
            version=__version__,
        )

    def start(self, wanted: Callable[[], bool], show: Callable[[bytes], None], finish: Callable[[], None]) -> None:
        """Begin.

        Parameters
        ----------
        wanted : callable
            Returns whether any viewer can take a message now; frames are encoded only then, and the last one of the source.
        show : callable
            Takes each message as `MessageEncoder` makes it, on the session's thread.
        finish : callable
            Called when the message before was the last one, on the session's thread.
        """
        self._wanted, self._show, self._finish = wanted, show, finish
        source = dataclasses.replace(self._source, reader=_ClosedWhereItIsRead(self._source))
        self._stream = label_frames(self._segmenter, source, then=(Stage("encode", self._encoded),))
        self._thread = threading.Thread(target=self._follow, args=(self._stream,), name="enet-tvm-live", daemon=True)
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """Whether any viewer can take a picture now; a frame that comes while none can is not shown."""
        return self._wanted()

    def _encoded(self, item: LabelledFrame) -> _Shown:
        return _Shown(item, self._encode(item) if self.wanted else None)

    def _follow(self, stream: Stream[_Shown]) -> None:
        last: _Shown | None = None
        try:
            for last in stream:
                self._history.add(stream.last_latency)
                if last.message is not None:
                    self._show(last.message)
        except UserError as error:
            self.error = error
        except BaseException as error:
            # A bug: the thread's traceback tells it, the page that there is nothing to wait for.
            self._ended = f"the program failed ({type(error).__name__}); its terminal says more"
            raise
        if last is not None and last.message is None:
            self._show(self._encode(last.item))  # who comes later sees how it ended
        self._finish()
        self._ended = ENDED if self.error is None else str(self.error)
        if not self._closing:
            self._say_end(self._ended)

    def figures(self, viewers: int) -> dict[str, Any]:
        """Return the figures of now, ready for JSON; may be called from any thread, and may wait for slow sensors."""
        assert self._stream is not None, "the session has not begun"
        rate, latency = self._history.recent()
        return {
            "fps": round(rate, 1),
            "latency": None if latency is None else round(latency, 1),
            "plot": self._history.plot(),
            "broken": self._source.broken,
            "viewers": viewers,
            "ended": self._ended,
            **stream_figures(self._stream.statistics()),
            **machine_figures(read_conditions()),
        }

    def close(self) -> None:
        """End the session; what a stage is at is finished, and the segmenter is free."""
        self._closing = True
        if self._stream is None:
            self._source.close()
        else:
            self._stream.close()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _ClosedWhereItIsRead:
    """A source as a reader that closes it after the last frame that was wanted, where no other thread is inside of it."""

    def __init__(self, source: VideoSource) -> None:
        self._source = source

    def iterate(self) -> Iterator[Frame]:
        try:
            yield from self._source
        finally:
            self._source.close()


def to_text(kind: str, values: dict[str, Any]) -> str:
    """Return a JSON object of a kind, as pages take it."""
    return json.dumps({"kind": kind, **values}, separators=(",", ":"), allow_nan=False)
