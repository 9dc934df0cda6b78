"""Sources of frames: a video file, a camera, a network stream, or a folder of pictures in order."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import find_pictures, load_picture
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame
from enet_tvm.video.library import pyav

SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mjpeg",
        ".mjpg",
        ".h264",
        ".hevc",
        ".wmv",
        ".flv",
        ".3gp",
    }
)
"""Suffixes of files that are taken for videos; a file given by name with another suffix is taken for a picture."""

_NETWORK = re.compile(r"^(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://", re.IGNORECASE)
_DEFAULT_RATE = Fraction(25)
SILENCE = 10.0
"""Longest silence of a camera or a network stream, in seconds."""
_PATIENCE = 1.0
"""Longest wait of closing for a silent source, in seconds."""
_TOLERANCE = 1.0
"""Seconds that may be missing at the end of a file."""


def is_video(where: str | Path) -> bool:
    """Return whether an argument is taken for a video: a network address, or a file with a video's suffix."""
    return _NETWORK.match(str(where)) is not None or Path(where).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class VideoSource:
    """Frames that can be iterated over once, by one thread.

    Attributes
    ----------
    name : str
        Name of the source in messages.
    live : bool
        Whether frames come by themselves and cannot wait.
    size : Size
        Width and height of the frames, upright and even.
    rate : Fraction
        Frames a second as the source says; 25 where it does not.
    frames : int or None
        Number of frames as the source says; None where it does not.
    reader : object
        Iterable of the decoded frames, which is closed with the source.
    seconds : float or None
        Seconds of the source that are given, by the frames' times; None for all.
    """

    name: str
    live: bool
    size: Size
    rate: Fraction
    frames: int | None
    reader: Any
    seconds: float | None = None

    @property
    def audio(self) -> Any:
        """The audio stream to be carried over, or None."""
        return self.reader.audio

    def take_audio(self) -> list[Any]:
        """Return the audio packets that were read since the last call, in order; may be called from another thread."""
        packets: list[Any] = self.reader.take_audio()
        return packets

    @property
    def broken(self) -> int:
        """Number of frames that could not be decoded so far, and were left out."""
        return int(self.reader.broken)

    @property
    def expected(self) -> int | None:
        """Number of frames to come, as far as the source says."""
        most = None if self.seconds is None else math.ceil(self.seconds * self.rate)
        return most if self.frames is None or self.live else min(self.frames, most or self.frames)

    def first(self, seconds: float | None) -> VideoSource:
        """Return the same source, ending after so many seconds of its own time; None for all of it."""
        return replace(self, seconds=seconds)

    def __iter__(self) -> Iterator[Frame]:
        frames: Iterator[Frame] = self.reader.iterate()
        end = self.seconds
        return (
            frames if end is None else itertools.takewhile(lambda frame: frame.seconds is None or frame.seconds < end, frames)
        )

    def close(self) -> None:
        """Close the file or the device."""
        self.reader.close()


def open_file(where: str | Path) -> VideoSource:
    """Open a video file or a network stream. A file that a web server has is no live source: it waits, and loses nothing.

    Raises
    ------
    UserError
        When it does not exist, cannot be opened, or holds no video.
    """
    name = str(where)
    if _NETWORK.match(name) is not None:
        options = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
        return _open(name, name, True, options=options, timeout=(SILENCE, SILENCE))
    path = Path(where).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    return _open(str(path), str(path), False)


def open_camera(which: str, size: Size | None = None, rate: int | None = None) -> VideoSource:
    """Open a camera, a network stream as one, or a file in its place.

    Parameters
    ----------
    which : str
        Camera: a number, as 0 for ``/dev/video0``; a device's path; or the address of a network stream.
    size : Size, optional
        Size of frames that the camera is asked for; its own choice by default.
    rate : int, optional
        Frames a second that the camera is asked for.

    Raises
    ------
    UserError
        When there is no such camera, it is in use, or cannot deliver that.
    """
    if _NETWORK.match(which):
        return open_file(which)
    options = {} if size is None else {"video_size": str(size)}
    if rate is not None:
        options["framerate"] = str(rate)
    if sys.platform == "darwin":
        return _open(which, f"camera {which}", True, options=options, format="avfoundation", timeout=(SILENCE, SILENCE))
    device = f"/dev/video{which}" if which.isdecimal() else which
    if not Path(device).exists():
        found = sorted(str(path) for path in Path("/dev").glob("video*"))
        have = f"this machine has {', '.join(found)}" if found else "this machine has no camera; plug one in"
        raise UserError(f"there is no camera {device}; {have}")
    if Path(device).is_file():
        raise UserError(f"{device} is a file, not a camera; give it without --camera")
    return _open(device, f"camera {device}", True, options=options, format="v4l2", timeout=(SILENCE, SILENCE))


def open_folder(folder: str | Path, rate: Fraction = _DEFAULT_RATE) -> VideoSource:
    """Open a folder's pictures as the frames of a video, in the order of their names.

    Raises
    ------
    UserError
        When there is no such folder, or it holds no pictures.
    """
    pictures = find_pictures([folder])
    first = load_picture(pictures[0])
    return VideoSource(
        str(folder), False, _even(Size(*first.size)), rate, len(pictures), _Pictures(pictures, _even(Size(*first.size)), rate)
    )


def _open(where: str, name: str, live: bool, **arguments: Any) -> VideoSource:
    av = pyav()
    try:
        container = av.open(where, metadata_errors="ignore", **arguments)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"cannot open {name} ({_reason(error)}); {_advice(live)}") from error
    try:
        if not container.streams.video:
            raise UserError(f"{name} holds no video; give a file with pictures that move")
        if live and where.lower().startswith("http") and container.duration is not None:
            live = False
        reader = _Decoder(av, container, name, live)
        return VideoSource(name, live, reader.size, reader.rate, container.streams.video[0].frames or None, reader)
    except BaseException:
        container.close()
        raise


def _advice(live: bool) -> str:
    return "check that it is connected and that nothing else uses it" if live else "is it a whole video file?"


def _reason(error: BaseException) -> str:
    if isinstance(error, pyav().ExitError):
        return f"nothing came for {SILENCE:g} seconds"
    return str(getattr(error, "strerror", None) or error)


def _even(size: Size) -> Size:
    """Return a size that 4:2:0 can hold: a last odd column or row is left out."""
    return Size(max(2, size.width & ~1), max(2, size.height & ~1))


class _Decoder:
    """Frames of an open container."""

    def __init__(self, av: Any, container: Any, name: str, live: bool) -> None:
        self._av, self._container, self._name, self._live = av, container, name, live
        self._video = container.streams.video[0]
        self._video.thread_type = "AUTO"
        self.audio = None if live or not container.streams.audio else container.streams.audio[0]
        self._packets: collections.deque[Any] = collections.deque()
        self.broken = 0
        self._busy = threading.Lock()
        self._closed = False
        self._upright: _Upright | None = None
        self._origin: int | None = None
        self._index = 0
        self._end = self._longest = 0.0
        self.rate = Fraction(self._video.average_rate or self._video.guessed_rate or _DEFAULT_RATE)
        # The first frame tells the size upright, which the container may not.
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None:
            raise UserError(f"{name} holds no frame that can be decoded; {_advice(live)}")
        self.size = self._first.size

    def iterate(self) -> Iterator[Frame]:
        if self._first is not None:
            yield self._first
            self._first = None
            while (frame := self._next()) is not None:
                yield frame

    def _next(self) -> Frame | None:
        with self._busy:  # who closes the container under a thread that reads it crashes the process
            return None if self._closed else next(self._decoded, None)

    def _decode(self) -> Iterator[Frame]:
        streams = [stream for stream in (self._video, self.audio) if stream is not None]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self._check_end()
                return
            except (self._av.FFmpegError, OSError) as error:
                rest = self._av.Packet()  # an empty one asks for those that the decoder still holds
                rest.stream, rest.time_base = self._video, self._video.time_base
                yield from self._frames(rest)
                raise self._ended(error) from error
            if packet.stream is not self.audio:
                yield from self._frames(packet)
            elif packet.dts is not None:
                self._packets.append(packet)

    def _frames(self, packet: Any) -> Iterator[Frame]:
        try:
            images = self._video.decode(packet)
        except self._av.InvalidDataError:
            self.broken += 1
            return
        except (self._av.FFmpegError, OSError) as error:
            raise self._ended(error) from error
        for image in images:
            if image.is_corrupt:
                self.broken += 1
            else:
                yield self._frame(image)

    def _ended(self, error: BaseException) -> UserError:
        return UserError(f"{self._name} ended at frame {self._index} ({_reason(error)}); {_advice(self._live)}")

    def _frame(self, image: Any) -> Frame:
        if self._upright is None:
            self._upright = _Upright(self._av, image)
        upright = self._upright(image)
        if upright.pts is None or upright.time_base is None:  # as of a bare stream of H.264
            upright.pts, upright.time_base = self._index, 1 / self.rate
        elif self._live:  # a camera counts from when the machine was started
            if self._origin is None:
                self._origin = upright.pts
            upright.pts -= self._origin
        frame = Frame(self._index, upright)
        self._index += 1
        if frame.seconds is not None:
            self._longest = max(self._longest, frame.seconds - self._end)
            self._end = frame.seconds + float((image.duration or 0) * (image.time_base or 0))
        return frame

    def _check_end(self) -> None:
        """Raise UserError when a file stops long before the end that it speaks of, as one that was not copied whole."""
        promised = self._promised()
        if promised is not None and promised - self._end > max(_TOLERANCE, 2 * self._longest):
            raise UserError(f"{self._name} ends after {self._end:.1f} of {promised:.1f} seconds; {_advice(self._live)}")

    def _promised(self) -> float | None:
        """Return when the file says that its last frame ends, in seconds."""
        video, container = self._video, self._container
        if self._live:
            return None
        if video.duration is not None:
            return float(((video.start_time or 0) + video.duration) * video.time_base)
        if container.duration is not None and not container.streams.audio:
            return float((container.start_time or 0) + container.duration) / 1e6
        return None

    def take_audio(self) -> list[Any]:
        packets = []
        with contextlib.suppress(IndexError):
            while True:
                packets.append(self._packets.popleft())
        return packets

    def close(self) -> None:
        self._closed = True
        # A camera that says nothing keeps its thread, and what that reads from, until it times out.
        if self._busy.acquire(timeout=_PATIENCE):
            self._container.close()
            self._busy.release()


class _Upright:
    """Brings frames upright and to 4:2:0 of even width and height: the size of the first one, as writers need.

    A telephone's video says by how much it is to be rotated.
    """

    def __init__(self, av: Any, first: Any) -> None:
        turned = round(first.rotation / 90) % 4
        self._av, self._turned = av, turned
        width, height = (first.height, first.width) if turned % 2 else (first.width, first.height)
        self.size = _even(Size(width, height))
        self._graph: Any = None
        self._kind: tuple[Any, ...] = ()
        self._converter = av.video.reformatter.VideoReformatter()  # keeps its filters from frame to frame

    def __call__(self, image: Any) -> Any:
        pts, time_base = image.pts, image.time_base
        if self._turned or image.width & 1 or image.height & 1:
            image = self._filtered(image)
        # A camera may change its format on the way, and the writer cannot.
        if (image.format.name, image.width, image.height) != ("yuv420p", *self.size):
            image = self._converter.reformat(image, self.size.width, self.size.height, "yuv420p", threads=1)
        image.pts, image.time_base = pts, time_base
        return image

    def _filtered(self, image: Any) -> Any:
        kind = (image.width, image.height, image.format.name)
        if kind != self._kind:
            # FFmpeg's rotation is counter-clockwise, and its transpose of 2 turns a quarter that way.
            turns = {0: (), 1: ("transpose=2",), 2: ("hflip", "vflip"), 3: ("transpose=1",)}[self._turned]
            graph = self._av.filter.Graph()
            chain = [graph.add_buffer(width=image.width, height=image.height, format=image.format, time_base=Fraction(1, 1000))]
            for step in (
                *turns,
                f"crop={self.size.width}:{self.size.height}:0:0:exact=1",
            ):
                kind_of_filter, _, values = step.partition("=")
                chain.append(graph.add(kind_of_filter, values or None))
            chain.append(graph.add("buffersink"))
            graph.link_nodes(*chain).configure()
            self._graph, self._kind = graph, kind
        self._graph.push(image)
        return self._graph.pull()


class _Pictures:
    """Picture files as frames of one size."""

    audio = None
    broken = 0

    def __init__(self, pictures: Sequence[Path], size: Size, rate: Fraction) -> None:
        self._pictures, self._size, self._rate = pictures, size, rate

    def iterate(self) -> Iterator[Frame]:
        av = pyav()
        for index, path in enumerate(self._pictures):
            picture = load_picture(path)
            if _even(Size(*picture.size)) != self._size:
                raise UserError(
                    f"{path} is {Size(*picture.size)}, but the frames before it are {self._size}; "
                    "bring the pictures to one size, or give another output than a video"
                )
            image = av.VideoFrame.from_image(picture.crop((0, 0, *self._size))).reformat(format="yuv420p")
            image.pts, image.time_base = index, 1 / self._rate
            yield Frame(index, image)

    def take_audio(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass
