"""A video file that is playable however its writing ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.machine import default_threads
from enet_tvm.size import Size
from enet_tvm.video.library import pyav

_TIME_BASE = Fraction(1, 60_000)
"""Seconds in a unit of the frames' times: whole numbers of it between frames at 24, 25, 30, 50 and 60 a second."""

_ENCODER = {"preset": "veryfast", "crf": "21", "bf": "0"}
"""Options of the encoder. No B frames: those need times before the first frame's, and are encoded later than they come."""

_FRAGMENT = 2
"""Seconds between frames that can be shown by themselves: so much is lost at most if the power goes."""

SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of files that can be written, and FFmpeg's name of each kind."""


def _encoder_threads() -> int:
    """Return the number of encoder threads: a quarter of the default number, as the network needs the others."""
    return max(1, default_threads().threads // 4)


class _NothingWrittenError(Exception):
    pass


class VideoWriter:
    """Writes frames as H.264, with the audio of their source, into a file.

    The file takes its place when the writer is closed, also after an error: what was written until then can be played.

    Parameters
    ----------
    path : Path
        File to write, an .mp4, .m4v, .mov or .mkv.
    size : Size
        Width and height of all frames; both even.
    rate : Fraction
        Frames a second for players; each frame keeps its own time.
    audio : av.AudioStream or None
        The stream whose packets `audio` takes.

    Raises
    ------
    UserError
        When the suffix is of no video, or the file cannot be written.
    """

    def __init__(self, path: Path, size: Size, rate: Fraction, audio: Any = None) -> None:
        self._av = pyav()
        self.path = Path(path)
        kind = video_format(self.path)
        self.frames = 0
        self.audio_left_out: str | None = None
        self._last = -1
        self._place = contextlib.ExitStack()
        temporary = self._place.enter_context(atomic_file(self.path))
        # Fragments can be played as far as they go, even after a power cut; closing makes an ordinary file of them.
        # Without an edit list, sound that begins before the first frame, as AAC does, would move all times.
        options = {"flush_packets": "1"}
        if kind in ("mp4", "mov"):
            options |= {"movflags": "hybrid_fragmented", "use_editlist": "1"}
        try:
            self._container = self._av.open(str(temporary), "w", format=kind, options=options)
            codec = next(name for name in ("libx264", "mpeg4") if name in self._av.codecs_available)
            self._video = self._container.add_stream(codec, rate=rate, options=_ENCODER | {"threads": str(_encoder_threads())})
            self._video.width, self._video.height = size
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.time_base = _TIME_BASE
            self._video.codec_context.gop_size = max(1, round(rate * _FRAGMENT))
            self._audio = self._audio_like(audio)
        except BaseException:
            self._give_up()
            raise

    def _audio_like(self, audio: Any) -> Any:
        if audio is None:
            return None
        try:
            return self._container.add_stream_from_template(audio)
        except (self._av.FFmpegError, ValueError) as error:
            self.audio_left_out = f"{audio.codec_context.name} sound cannot be in a {self.path.suffix} ({error})"
            return None

    def write(self, image: Any, audio: Iterable[Any] = ()) -> None:
        """Write a frame with its time, and audio packets that were read before it.

        Raises
        ------
        UserError
            When the disk is full or fails.
        """
        # A frame that a source gives the time of the one before it comes a moment later: encoders take none twice.
        self._last = max(self._last + 1, round(image.pts * image.time_base / _TIME_BASE))
        image.pts, image.time_base = self._last, _TIME_BASE
        try:
            self._mux_audio(self._container, audio)
            for packet in self._video.encode(image):
                self._container.mux(packet)
            self.frames += 1
        except (self._av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def close(self, audio: Iterable[Any] = ()) -> None:
        """Write what the encoder still holds and put the file in its place; without a frame there is no file.

        Raises
        ------
        UserError
            When the disk is full or fails; what could be written is in its place all the same.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        failed: BaseException | None = None
        try:
            for step in (lambda: self._flush(container, audio), container.close):
                try:
                    step()
                except (self._av.FFmpegError, OSError) as error:
                    failed = failed or error
        finally:
            if not self.frames:
                self._give_up()
            self._place.close()
        if failed is not None:
            raise self._unwritable(failed) from failed

    def _give_up(self) -> None:
        """Leave what was at the path before."""
        with contextlib.suppress(_NothingWrittenError):
            self._place.__exit__(_NothingWrittenError, _NothingWrittenError(), None)

    def _flush(self, container: Any, audio: Iterable[Any]) -> None:
        self._mux_audio(container, audio)
        if self.frames:
            for packet in self._video.encode(None):
                container.mux(packet)

    def _mux_audio(self, container: Any, packets: Iterable[Any]) -> None:
        for packet in packets:
            if self._audio is not None:
                packet.stream = self._audio
                container.mux(packet)

    def _unwritable(self, error: BaseException) -> UserError:
        reason = getattr(error, "strerror", None) or error
        return UserError(f"cannot write {self.path}: {reason}; choose another place or free some room")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(UserError) if error is not None else contextlib.nullcontext():
            self.close()


def video_format(path: Path) -> str:
    """Return FFmpeg's name of the kind of file that a suffix stands for.

    Raises
    ------
    UserError
        When it is none that can be written.
    """
    if (kind := SUFFIXES.get(path.suffix.lower())) is None:
        raise UserError(f"{path} is no video that can be written; give a name that ends in {', '.join(SUFFIXES)}")
    return kind
