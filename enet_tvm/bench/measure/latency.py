"""How long functions take, measured side by side so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enet_tvm.bench.runners.base import PassTimes

_WINDOW = 5
"""Number of calls of each function whose median tells whether it is still warming up."""

_SETTLED = 0.03
"""Share by which a window of calls must be faster than the one before for the function to be still warming up."""

STEADY = 0.25
"""Share of the median beyond which the spread between the 10th and 90th percentile makes a measurement doubtful."""


@dataclass(frozen=True)
class Latency:
    """Times of one function.

    Attributes
    ----------
    seconds : tuple of float
        Duration of each call on its device, in order, warm-up left out.
    transfers : tuple of float
        Duration of moving data between host and device in each call; empty where nothing is moved.
    """

    seconds: tuple[float, ...]
    transfers: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Median duration, in seconds."""
        return self.percentile(50)

    def percentile(self, share: float) -> float:
        """Return the duration, in seconds, that `share` percent of the calls stay below."""
        return float(np.percentile(self.seconds, share))

    @property
    def spread(self) -> float:
        """The distance of the 10th and 90th percentile, as a share of the median."""
        return (self.percentile(90) - self.percentile(10)) / self.median

    @property
    def steady(self) -> bool:
        """Whether the calls vary little enough for the median to be trusted."""
        return self.spread <= STEADY

    @property
    def transfer(self) -> float:
        """Median seconds of moving data between host and device; 0 where nothing is moved."""
        return float(np.median(self.transfers)) if self.transfers else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, in milliseconds."""
        figures = {f"p{share}_ms": 1e3 * self.percentile(share) for share in (10, 90, 99)}
        return {
            "median_ms": 1e3 * self.median,
            **figures,
            "transfer_ms": 1e3 * self.transfer,
            "calls": len(self.seconds),
            "spread": self.spread,
            "steady": self.steady,
        }


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    *,
    min_rounds: int = 20,
    seconds: float = 10.0,
    pause: float = 0.005,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Latency]:
    """Time functions in turns: every round calls each of them once, each round beginning with another one.

    Parameters
    ----------
    functions : mapping of str to callable
        Functions to time, by name. One that returns `PassTimes` is taken at its word instead of by the clock.
    min_rounds : int
        Least number of rounds.
    seconds : float
        Duration of the measurement, unless the least number of rounds takes longer. The warm-up before it ends when no
        function gets faster any more, at the latest after half that time.
    pause : float
        Seconds between two calls: a thread pool keeps its threads spinning for a moment after its work is done, which
        would slow down the next function.
    clock, sleep : callable
        Functions that return the time in seconds, and that wait for a number of seconds.

    Returns
    -------
    dict of str to Latency
        Times of each function, in the order of `functions`.
    """
    if not functions or min_rounds < 1:
        raise ValueError("there must be a function and a round")
    names = list(functions)

    def one_round(number: int) -> dict[str, PassTimes]:
        times = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            sleep(pause)
            start = clock()
            result = functions[name]()
            times[name] = result if isinstance(result, PassTimes) else PassTimes(clock() - start)
        return times

    _warm_up(one_round, seconds / 2, clock)
    end = clock() + seconds
    rounds: list[dict[str, PassTimes]] = []
    while len(rounds) < min_rounds or clock() < end:
        rounds.append(one_round(len(rounds)))
    return {name: _latency([times[name] for times in rounds]) for name in names}


def _latency(passes: Sequence[PassTimes]) -> Latency:
    transfers = tuple(times.transfer for times in passes)
    return Latency(tuple(times.device for times in passes), transfers if any(transfers) else ())


def _warm_up(one_round: Callable[[int], dict[str, PassTimes]], seconds: float, clock: Callable[[], float]) -> None:
    """Run rounds, at least one, until the times have settled or so many seconds have passed."""
    end = clock() + seconds
    history = [one_round(0)]
    while clock() < end:
        history.append(one_round(len(history)))
        if len(history) >= 2 * _WINDOW and all(_settled([times[name].device for times in history]) for name in history[0]):
            return


def _settled(times: list[float]) -> bool:
    before, now = np.median(times[-2 * _WINDOW : -_WINDOW]), np.median(times[-_WINDOW:])
    return bool(now >= before * (1 - _SETTLED))
