"""Load of the processors: how many of them other work leaves to an engine's threads.

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
"""Shortest time in seconds over which the load is averaged: the kernel counts in hundredths of a second."""

_FITS, _COMES_BACK = 0.5, 0.65
"""Free share of a processor for a thread to stay, and for one more to begin; they differ so that the number settles."""

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
"""Number of ticks a second in which /proc/stat counts."""


class ProcessorWatch:
    """Measures how much of some processors' time is idle or goes to some threads.

    Parameters
    ----------
    cpus : sequence of int
        Numbers of the processors.
    threads : sequence of int
        Threads of this process, by the kernel's numbers.
    proc : str or Path
        Folder of the kernel's files on processes.
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
            Time of the monotonic clock in seconds; read from it by default.

        Returns
        -------
        float or None
            Number of free processors; None when less than `WINDOW` has passed, or the kernel does not tell.
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
        """Return the processors' seconds that were idle or went to the threads, and all seconds that the kernel has counted."""
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
    """Return the number of threads that a pass should use, at least one.

    Parameters
    ----------
    available : float
        Number of processors that are free for the threads.
    most, now : int
        Number of threads that there are, and that are in use.
    """
    fit = int(available + 1 - _FITS)
    if fit > now:
        fit = max(now, int(available + 1 - _COMES_BACK))
    return max(1, min(most, fit))
