"""What a multiprocessor of each architecture does in a clock, from NVIDIA's documents and published microbenchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiprocessor:
    """What a multiprocessor of one architecture does in a clock.

    Attributes
    ----------
    lanes : int
        Float32 multiply-adds a clock.
    l1_bytes, shared_bytes, l2_bytes : float
        Bytes a clock between registers and L1, between registers and shared memory, and between L1 and L2.
    unified : bool
        Whether L1 and shared memory are one memory, and share its path.
    latency : float
        Clocks from a load that L1 holds to the use of its value.
    memory_latency : float
        Clocks from a load that neither L1 nor L2 holds.
    warps, blocks : int
        Warps and blocks that it has room for.
    shared_memory : int
        Bytes of shared memory.
    launch_us : float
        Microseconds between the end of a kernel and the start of the next one in a captured graph.
    registers : int
        32-bit registers.
    """

    lanes: int
    l1_bytes: float
    shared_bytes: float
    l2_bytes: float
    unified: bool
    latency: float
    memory_latency: float
    warps: int
    blocks: int
    shared_memory: int
    launch_us: float
    registers: int = 65536


_MAXWELL = Multiprocessor(128, 64, 128, 32, False, 85, 400, 64, 32, 65536, 5.0)
_VOLTA = Multiprocessor(64, 128, 128, 32, True, 32, 450, 64, 32, 98304, 1.5)
_MULTIPROCESSORS = {
    5: _MAXWELL,
    6: Multiprocessor(128, 64, 128, 32, False, 85, 450, 64, 32, 98304, 2.5),
    60: Multiprocessor(64, 64, 128, 32, False, 85, 450, 64, 32, 65536, 2.5),
    7: _VOLTA,
    75: Multiprocessor(64, 64, 64, 32, True, 32, 450, 32, 16, 65536, 1.5),
    80: Multiprocessor(64, 128, 128, 32, True, 33, 500, 64, 32, 163840, 1.5),
    8: Multiprocessor(128, 128, 128, 20, True, 33, 500, 48, 16, 102400, 1.5),
    9: Multiprocessor(128, 128, 128, 32, True, 33, 550, 64, 32, 228352, 1.5),
}
"""By ten times the compute capability where there is an entry for it, else by its first digit."""


def multiprocessor_of(arch: str) -> Multiprocessor | None:
    """Return the multiprocessor of an architecture such as ``sm_53``; None for one of which nothing is known."""
    number = int(arch.removeprefix("sm_"))
    return _MULTIPROCESSORS.get(number) or _MULTIPROCESSORS.get(number // 10)
