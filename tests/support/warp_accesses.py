"""How well the threads of a warp share their accesses: sectors of global memory, and banks of shared memory.

Computed from what the fibers of `cuda_fibers` did in one block, for every instruction of each warp: global memory moves in
sectors of 32 bytes, so a load of 32 neighbouring floats takes 4, and one with a stride of two floats 8. Shared memory has 32
banks of 4 bytes, and different words of one bank take turns; accesses of 8 and 16 bytes are done by halves and quarters of the
warp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WARP = 32
SECTOR = 32
BANKS = 32


@dataclass(frozen=True)
class Traffic:
    """What a block's warps did to memory.

    Attributes
    ----------
    loads, stores : int
        Sectors of global memory that the instructions touched.
    least_loads, least_stores : int
        Sectors that as many different bytes take at least.
    shared : int
        Turns that shared memory would take without conflicts.
    conflicts : int
        Turns that it takes beyond these.
    """

    loads: int = 0
    least_loads: int = 0
    stores: int = 0
    least_stores: int = 0
    shared: int = 0
    conflicts: int = 0

    @property
    def load_ratio(self) -> float:
        """Sectors read for each that it takes."""
        return self.loads / self.least_loads if self.least_loads else 1.0

    @property
    def store_ratio(self) -> float:
        """Sectors written for each that it takes."""
        return self.stores / self.least_stores if self.least_stores else 1.0

    @property
    def conflict_ratio(self) -> float:
        """Turns lost for each that it takes."""
        return self.conflicts / self.shared if self.shared else 0.0


def traffic(accesses: np.ndarray) -> Traffic:
    """Return what the accesses of a block, of type `cuda_fibers.ACCESS`, come to."""
    totals = dict.fromkeys(("loads", "least_loads", "stores", "least_stores", "shared", "conflicts"), 0)
    for of_warp in _instructions(accesses):
        size = int(of_warp["size"][0])
        if of_warp["shared"][0]:
            turns, conflicts = _turns(of_warp["address"].astype(np.int64), of_warp["thread"] % WARP, size)
            totals["shared"] += turns
            totals["conflicts"] += conflicts
            continue
        addresses = np.unique(of_warp["address"])
        name = "stores" if of_warp["writes"][0] else "loads"
        totals[name] += np.unique(np.concatenate([addresses // SECTOR, (addresses + size - 1) // SECTOR])).size
        totals[f"least_{name}"] += -(-addresses.size * size // SECTOR)
    return Traffic(**totals)


def _instructions(accesses: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the accesses that a warp makes together: the n-th time that each of its threads comes to an instruction."""
    if not accesses.size:
        return
    order = np.lexsort((np.arange(accesses.size), accesses["instruction"], accesses["thread"]))
    ordered = accesses[order]
    first = np.r_[
        True, (ordered["thread"][1:] != ordered["thread"][:-1]) | (ordered["instruction"][1:] != ordered["instruction"][:-1])
    ]
    start = np.flatnonzero(first)
    turn = np.arange(ordered.size) - np.repeat(start, np.diff(np.r_[start, ordered.size]))
    keys = (ordered["thread"], turn, ordered["instruction"], ordered["thread"] // WARP)
    together = np.lexsort(keys)
    grouped = ordered[together]
    labels = [np.asarray(key)[together] for key in keys[1:]]
    edges = np.flatnonzero(np.any([label[1:] != label[:-1] for label in labels], axis=0)) + 1
    yield from np.split(grouped, edges)


def _turns(addresses: np.ndarray, lanes: np.ndarray, size: int) -> tuple[int, int]:
    """Return the turns that an access of shared memory takes without conflicts, and those that they add."""
    words = max(1, size // 4)
    turns = conflicts = 0
    lanes_a_turn = WARP // words
    for part in np.unique(lanes // lanes_a_turn):
        starts = addresses[lanes // lanes_a_turn == part] // 4
        different = np.unique(starts[:, None] + np.arange(words))
        turns += 1
        conflicts += int(np.bincount(different % BANKS).max()) - 1
    return turns, conflicts
