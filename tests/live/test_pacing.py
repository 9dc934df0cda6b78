from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from enet_tvm.live import pacing
from enet_tvm.live.pacing import paced
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame
from enet_tvm.video.library import pyav
from enet_tvm.video.source import VideoSource


@dataclass
class Recording:
    """Frames at given times, as a file's reader gives them: at once."""

    times: list[float | None]
    audio: object = "sound"
    broken: int = 1
    closed: bool = False
    taken: int = 0
    delays: dict[int, float] = field(default_factory=dict)

    def iterate(self) -> Iterator[Frame]:
        for index, seconds in enumerate(self.times):
            if index in self.delays:
                pacing.time.sleep(self.delays[index])
            image = pyav().VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")
            if seconds is not None:
                image.pts, image.time_base = round(1000 * seconds), Fraction(1, 1000)
            yield Frame(index, image)

    def take_audio(self) -> list[Any]:
        self.taken += 1
        return []

    def close(self) -> None:
        self.closed = True

    def source(self, rate: int = 25) -> VideoSource:
        return VideoSource("ride.mp4", False, Size(8, 8), Fraction(rate), len(self.times), self)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the pacer waits for, on a clock that only its waiting moves."""
    found: list[float] = []
    now = [100.0]

    def sleep(seconds: float) -> None:
        found.append(round(seconds, 6))
        now[0] += seconds

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

    Clock.sleep = staticmethod(sleep)  # type: ignore[attr-defined]
    monkeypatch.setattr(pacing, "time", Clock)
    return found


def test_frames_come_at_their_times_as_of_a_camera(waits: list[float]) -> None:
    recording = Recording([0.0, 0.1, 0.15, 0.4])
    source = paced(recording.source())
    assert source.live
    assert source.audio is None
    assert [frame.index for frame in source] == [0, 1, 2, 3]
    assert waits == [0.0, 0.1, 0.05, 0.25]
    assert recording.taken == 4  # sound that nobody hears is not kept


def test_in_real_time() -> None:
    before = time.perf_counter()
    assert len(list(paced(Recording([0.0, 0.1, 0.2]).source()))) == 3
    assert 0.2 <= time.perf_counter() - before < 5


def test_frames_without_times_come_at_the_rate_of_the_source(waits: list[float]) -> None:
    assert len(list(paced(Recording([None, None, None]).source(rate=10)))) == 3
    assert waits == [0.0, 0.1, 0.1]


def test_times_that_jump_are_not_waited_for(waits: list[float]) -> None:
    assert len(list(paced(Recording([10.0, 10.1, 5000.0, 5000.1, 3.0, 3.1]).source()))) == 6
    assert waits == [0.0, 0.1, 0.0, 0.1, 0.0, 0.1]


def test_a_short_delay_is_made_up_for_a_long_one_is_not(waits: list[float]) -> None:
    recording = Recording([0.0, 0.1, 0.2, 0.3, 0.4], delays={1: 0.15, 3: 30.0})
    assert len(list(paced(recording.source()))) == 5
    assert [wait for wait in waits if wait not in (0.15, 30.0)] == [0.0, 0.0, 0.05, 0.0, 0.1]


def test_a_loop_opens_the_source_anew_and_counts_on(waits: list[float]) -> None:
    recordings = [Recording([0.0, 0.1]) for _ in range(3)]
    others = iter(recordings[1:])
    source = paced(recordings[0].source(), lambda: next(others).source())
    frames = iter(source)
    found = [next(frames) for _ in range(5)]
    assert [frame.index for frame in found] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in found] == [0.0, 0.1, 0.0, 0.1, 0.0]
    assert [recording.closed for recording in recordings] == [True, True, False]
    assert source.broken == 3
    assert waits == [0.0, 0.1, 0.04, 0.0, 0.1, 0.04, 0.0]
    source.close()
    assert recordings[2].closed
