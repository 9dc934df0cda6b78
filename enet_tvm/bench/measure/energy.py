"""Energy: what a meter adds up while something runs."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

READ_EVERY = 0.05
"""Seconds between two readings of a power rail."""


@dataclass(frozen=True)
class Energy:
    """Energy taken from one power rail in a span of time.

    Attributes
    ----------
    meter : str
        Name of the rail, and of what measured it.
    joules, seconds : float
        Energy in joules, and length of the span in seconds.
    """

    meter: str
    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power, in watts."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0


class Meter(ABC):
    """Adds up what one rail delivers, from its making or from `restart` on.

    Parameters
    ----------
    name : str
        Name of the rail, and of what measures it.
    clock : callable
        Returns the time in seconds.

    Attributes
    ----------
    seconds : float
        Time from the beginning to the last reading.
    joules : float
        Energy taken in that time.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.joules = self.seconds = 0.0
        self._begun = self._clock()
        self._begin(self._begun)

    def sample(self) -> None:
        """Take a reading; the more often, the better."""
        now = self._clock()
        self.joules += self._since_last(now)
        self.seconds = now - self._begun

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Take the first reading."""

    @abstractmethod
    def _since_last(self, now: float) -> float:
        """Take a reading and return the joules since the one before."""


class CounterMeter(Meter):
    """A meter that reads a counter of energy.

    Parameters
    ----------
    name : str
        Name of the rail, and of what measures it.
    read : callable
        Returns the energy so far in microjoules, or None.
    wraps_at : int or None
        Microjoules at which the counter begins again.
    """

    def __init__(self, name: str, read: Callable[[], int | None], wraps_at: int | None = None) -> None:
        self._read, self._wraps_at = read, wraps_at
        super().__init__(name)

    def _begin(self, now: float) -> None:
        self._last = self._read()

    def _since_last(self, now: float) -> float:
        before, self._last = self._last, self._read()
        if self._last is None:
            self._last = before
        if self._last is None or before is None:
            return 0.0
        step = self._last - before
        return (step if step >= 0 else step + (self._wraps_at or -step)) / 1e6


class PowerMeter(Meter):
    """A meter that reads power, and integrates it by the trapezoidal rule.

    Parameters
    ----------
    name : str
        Name of the rail, and of what measures it.
    read : callable
        Returns the power now in watts, or None.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, name: str, read: Callable[[], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        super().__init__(name, clock)

    def _begin(self, now: float) -> None:
        self._last = now, self._read()

    def _since_last(self, now: float) -> float:
        watts = self._read()
        then, before = self._last
        if watts is None and before is not None:
            return 0.0  # the next reading bridges it
        self._last = now, watts
        return (now - then) * (watts + before) / 2 if watts is not None and before is not None else 0.0


class EnergyRecorder:
    """Adds up all meters between `start` and `stop`, reading them by itself in between.

    Parameters
    ----------
    meters : sequence of Meter
        Meters to read.
    in_background : bool
        Whether a thread reads them every 50 ms; otherwise the caller does, by `sample`, because they are behind a
        connection that is in use.
    """

    def __init__(self, meters: Sequence[Meter], *, in_background: bool = True) -> None:
        self._meters = list(meters)
        self._in_background = in_background and bool(meters)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Restart all meters, and begin to read them."""
        for meter in self._meters:
            meter.restart()
        if self._in_background:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def sample(self) -> None:
        """Read all meters once."""
        for meter in self._meters:
            meter.sample()

    def stop(self) -> tuple[Energy, ...]:
        """Stop reading, and return the energy that each meter counted, in their order."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.sample()
        return tuple(Energy(meter.name, meter.joules, meter.seconds) for meter in self._meters)

    def _follow(self) -> None:
        while not self._ended.wait(READ_EVERY):
            self.sample()


def energy_figures(energies: Sequence[Energy], passes: int) -> list[dict[str, Any]]:
    """Return joules per forward pass and mean watts of every rail, as JSON takes them."""
    return [
        {"meter": energy.meter, "joules_per_pass": energy.joules / max(passes, 1), "watts": energy.watts} for energy in energies
    ]
