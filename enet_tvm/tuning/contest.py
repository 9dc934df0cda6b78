"""Which of several kernels is the fastest, on a machine that does other things as well."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

MARGIN = 0.01
"""By which a rival must beat the default in the median of all turns."""


def choose(default: Sequence[float], rivals: dict[Any, list[float]]) -> Any | None:
    """Return the rival that beats the default by more than the noise, the fastest if there are several, else None.

    Parameters
    ----------
    default : sequence of float
        Seconds in each turn.
    rivals : dict
        Seconds of each rival in the same turns, infinite where it failed.
    """
    best, least = None, 1 - MARGIN
    for rival, seconds in rivals.items():
        ratios = [ours / base for ours, base in zip(seconds, default, strict=True)]
        # A burst of other work may spoil one turn, but what is faster is so in the others.
        won = sum(ratio < 1 for ratio in ratios) >= len(ratios) - len(ratios) // 4
        median = statistics.median(ratios)
        if won and median <= least and max(seconds) < float("inf"):
            best, least = rival, median
    return best
