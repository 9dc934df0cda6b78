"""How many processors other work leaves to an engine's threads.

The threads of TVM's pool wait for each other at the end of every kernel, and those that wait give way to whatever else wants
to run. Beside other work a pass is therefore as slow as its unluckiest thread at each of its hundred kernels: on two busy
processors, two threads take up to four times as long as one. So a pass uses only as many threads as find a processor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

WINDOW = 0.25
"""Seconds over which the load is averaged, at least: the kernel counts time in hundredths of a second."""

_FITS, _COMES_BACK = 0.5, 0.65
"""Part of a processor that must be free for a thread to stay on it, and for one more to begin; apart, so that it rests."""

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
"""Of which /proc/stat counts so many in a second."""


class ProcessorWatch:
    """Measures how much of some processors' time is idle or goes to some threads.

    Parameters
    ----------
    cpus : sequence of int
        Numbers of the processors.
    threads : sequence of int
        The threads, by the kernel's numbers, of this process.
    proc : str or Path
        Where the kernel's files are.
    """

    def __init__(self, cpus: Sequence[int], threads: Sequence[int], proc: str | Path = "/proc") -> None:
        self._names = {f"cpu{number}" for number in cpus}
        self._stat = Path(proc, "stat")
        self._own = [Path(proc, "self/task", str(thread), "schedstat") for thread in threads]
        self._last = self._read()
        self._since = time.monotonic()

    def available(self, now: float | None = None) -> float | None:
        """Return how many processors were free for the threads since the last answer.

        Parameters
        ----------
        now : float, optional
            Seconds of the monotonic clock.

        Returns
        -------
        float or None
            None when less than `WINDOW` has passed, or the kernel does not tell.
        """
        now = time.monotonic() if now is None else now
        if now - self._since < WINDOW:
            return None
        before, after, passed = self._last, self._read(), now - self._since
        self._last, self._since = after, now
        if before is None or after is None or after[1] <= before[1]:
            return None
        return min(float(len(self._names)), max(0.0, (after[0] - before[0]) / passed))

    def _read(self) -> tuple[float, float] | None:
        """Return the seconds that were idle or the threads', and all that the kernel has counted."""
        free = total = 0.0
        try:
            for line in self._stat.read_text(encoding="ascii").splitlines():
                name, _, rest = line.partition(" ")
                if name in self._names:
                    # user, nice, system, idle, iowait, ...
                    ticks = [int(text) for text in rest.split()]
                    free += sum(ticks[3:5]) / _TICKS
                    total += sum(ticks) / _TICKS
            for path in self._own:
                free += int(path.read_text(encoding="ascii").split()[0]) * 1e-9
        except (OSError, ValueError, IndexError):
            return None
        return free, total


def fitting_threads(available: float, most: int, now: int) -> int:
    """Return how many threads find a processor.

    Parameters
    ----------
    available : float
        Processors that are free for them.
    most, now : int
        Threads that there are, and that are in use.
    """
    fit = int(available + 1 - _FITS)
    if fit > now:
        fit = max(now, int(available + 1 - _COMES_BACK))
    return max(1, min(most, fit))
