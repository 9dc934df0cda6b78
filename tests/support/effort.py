"""What a test costs, by which it is marked slow or not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Seconds that passed, and seconds of processors' work: of this process and of its children that have ended."""

    passed: float
    worked: float

    def __add__(self, other: Effort) -> Effort:
        return Effort(self.passed + other.passed, self.worked + other.worked)

    def __sub__(self, other: Effort) -> Effort:
        return Effort(self.passed - other.passed, self.worked - other.worked)

    @property
    def seconds(self) -> float:
        """Time on a machine with nothing else to do, from above.

        Other programs make the clock's seconds longer and leave the work as it is; work of several processors at once takes
        less by the clock. So the smaller of the two is fair on a busy machine, which is where tests mostly run.
        """
        return min(self.passed, self.worked)


def effort() -> Effort:
    """Return what this process has cost so far, but for `shared_work`."""
    return _total() - _shared


@contextmanager
def shared_work() -> Iterator[None]:
    """Keep what happens within off the account of the test that happened to need it first."""
    global _shared, _depth
    begun = _total()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _shared += _total() - begun


def _total() -> Effort:
    times = os.times()
    return Effort(time.monotonic(), times.user + times.system + times.children_user + times.children_system)


_shared = Effort(0.0, 0.0)
_depth = 0
