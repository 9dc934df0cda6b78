"""Figures on the page: frame rate, latency, dropped frames, and the machine's temperature and clocks."""

from __future__ import annotations

import collections
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from enet_tvm.bench.machine.conditions import Conditions
from enet_tvm.runtime.stream import StreamStatistics

INTERVAL = 0.5
"""Seconds between two sets of figures, and seconds of one point of the plot."""

_MINUTE = round(60 / INTERVAL)
_RECENT = round(2 / INTERVAL)
"""Number of points over which the current rate and latency are taken."""


class History:
    """The last minute, point by point; any thread may add to it or read it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._points: collections.deque[tuple[int, list[float]]] = collections.deque(maxlen=_MINUTE + 1)

    def add(self, latency: float) -> None:
        """Note a frame that is ready now, `latency` seconds after the source gave it."""
        place = self._place()
        with self._lock:
            if not self._points or self._points[-1][0] != place:
                self._points.append((place, []))
            self._points[-1][1].append(1e3 * latency)

    def recent(self) -> tuple[float, float | None]:
        """Return frames a second and their median latency in milliseconds over two seconds, None where there is no frame."""
        now = self._place()
        with self._lock:
            found = [value for place, values in self._points if now - _RECENT <= place < now for value in values]
        span = min(_RECENT, now) * INTERVAL
        return len(found) / span if span else 0.0, statistics.median(found) if found else None

    def plot(self) -> list[tuple[float, float] | None]:
        """Return median and highest latency in milliseconds over the last minute, oldest first; None where no frame came."""
        now = self._place()
        with self._lock:
            found = {place: (statistics.median(values), max(values)) for place, values in self._points}
        return [_rounded(found.get(place)) for place in range(max(0, now - _MINUTE), now)]

    def _place(self) -> int:
        return int((self._clock() - self._began) / INTERVAL)


def _rounded(point: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if point is None else (round(point[0], 1), round(point[1], 1))


def stream_figures(found: StreamStatistics) -> dict[str, Any]:
    """Return what a stream's statistics say since its start, ready for JSON."""
    return {
        "frames": found.items,
        "dropped": found.dropped,
        "latency_p99": round(found.latency.p99, 1),
        "stages": {name: _rounded((times.p50, times.p99)) for name, times in found.stages.items()},
    }


def machine_figures(conditions: Conditions) -> dict[str, Any]:
    """Return the machine's highest temperature and its clocks, ready for JSON; None for what it does not tell."""
    place = max(conditions.temperatures, key=conditions.temperatures.__getitem__, default=None)
    clocks = {name: mhz for name, mhz in conditions.clocks.items() if mhz > 0}
    return {
        "celsius": None if place is None else round(conditions.temperatures[place], 1),
        "celsius_of": place,
        "celsius_limit": None if place is None else conditions.limits.get(place),
        "mhz": round(statistics.mean(clocks.values())) if clocks else None,
        "mhz_cap": round(statistics.mean(conditions.caps.values())) if conditions.caps else None,
    }


@dataclasses.dataclass(frozen=True)
class About:
    """Facts that do not change while a page is open; its fields are the JSON's.

    Attributes
    ----------
    artifact, network, target, source : str
        Names of the artifact, the network, the target and the source.
    classes : list of dict
        ``name`` and ``colour`` (RGB) of each class.
    lines : bool
        Whether the PNGs have lines around segments.
    opacity : float
        Opacity of the colours when the page opens, 0 to 1.
    network_size, source_size, shown_size : tuple of int
        Width and height of the network's input, of the frames, and of the pictures that are sent.
    rate : float
        Frames a second, as the source says.
    threads : int
        Number of threads of the network.
    alone_ms : float
        Median milliseconds of the network by itself, before the first frame.
    version : str
        Version of this program.
    """

    artifact: str
    network: str
    target: str
    source: str
    classes: list[dict[str, Any]]
    lines: bool
    opacity: float
    network_size: tuple[int, int]
    source_size: tuple[int, int]
    shown_size: tuple[int, int]
    rate: float
    threads: int
    alone_ms: float
    version: str
