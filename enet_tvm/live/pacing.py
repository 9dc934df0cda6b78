"""A recorded source at its own speed, as if it were a camera."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from enet_tvm.video.frame import Frame
from enet_tvm.video.source import VideoSource

_PATIENCE = 1.0
"""Delay in seconds above which a source does not catch up: the machine slept, or decodes too slowly."""

_LONGEST_WAIT = 5.0
"""Longest wait for a frame in seconds, whatever time it claims to have."""


def paced(source: VideoSource, reopen: Callable[[], VideoSource] | None = None) -> VideoSource:
    """Return a source that gives each frame of a recorded one at its time, live: who is too slow for it loses frames.

    Parameters
    ----------
    source : VideoSource
        Source of a file or a folder's pictures. The result owns it.
    reopen : callable, optional
        Opens the source anew, to begin again at its end; without it the end is the end.
    """
    return dataclasses.replace(source, live=True, frames=None, reader=_Pacer(source, reopen))


class _Pacer:
    """Reader of a `VideoSource` that waits for each frame's time."""

    audio = None

    def __init__(self, source: VideoSource, reopen: Callable[[], VideoSource] | None) -> None:
        self._source, self._reopen = source, reopen
        self._broken_before = 0

    def iterate(self) -> Iterator[Frame]:
        index = 0
        while True:
            began: float | None = None
            for place, frame in enumerate(self._source):
                self._source.take_audio()  # nobody hears it, and it would be kept
                due = float(place / self._source.rate) if frame.seconds is None else frame.seconds
                now = time.perf_counter()
                began = now - due if began is None else began
                late = now - began - due
                if not -_LONGEST_WAIT <= late <= _PATIENCE:
                    began, late = now - due, 0.0
                time.sleep(max(0.0, -late))
                yield dataclasses.replace(frame, index=index)
                index += 1
            if self._reopen is None:
                return
            # The last frame is shown as long as any other.
            time.sleep(float(1 / self._source.rate))
            self._broken_before += self._source.broken
            self._source.close()
            self._source = self._reopen()

    def take_audio(self) -> list[Any]:
        return []

    @property
    def broken(self) -> int:
        return self._broken_before + self._source.broken

    def close(self) -> None:
        self._source.close()
