"""What a multiprocessor of each architecture does in a clock, from NVIDIA's documents and published microbenchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    half2_lanes : int
        Multiply-adds of pairs of float16 a clock; 0 where it has as good as none.
    matrix_products : int
        Multiply-adds a clock of products of matrices of float16 with sums in float32; 0 where it has none of PTX's ``m16n8``.
    conversions : int
        Conversions a clock between float32 and float16 that are no arithmetic of halves.
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
    half2_lanes: int = 0
    matrix_products: int = 0
    conversions: int = 16

    @property
    def doubles_halves(self) -> bool:
        """Whether arithmetic of pairs of float16 is twice as fast as that of float32."""
        return self.half2_lanes >= self.lanes


_MAXWELL = Multiprocessor(128, 64, 128, 32, False, 85, 400, 64, 32, 65536, 5.0, conversions=32)
_VOLTA = Multiprocessor(64, 128, 128, 32, True, 32, 450, 64, 32, 98304, 1.5, half2_lanes=64)
_PASCAL = Multiprocessor(128, 64, 128, 32, False, 85, 450, 64, 32, 98304, 2.5, conversions=32)
_AMPERE = Multiprocessor(128, 128, 128, 20, True, 33, 500, 48, 16, 102400, 1.5, half2_lanes=64, matrix_products=256)
_MULTIPROCESSORS = {
    5: _MAXWELL,
    53: replace(_MAXWELL, half2_lanes=128),
    6: _PASCAL,
    60: Multiprocessor(64, 64, 128, 32, False, 85, 450, 64, 32, 65536, 2.5, half2_lanes=64),
    62: replace(_PASCAL, half2_lanes=128),
    7: _VOLTA,
    75: Multiprocessor(64, 64, 64, 32, True, 32, 450, 32, 16, 65536, 1.5, half2_lanes=64, matrix_products=256),
    80: Multiprocessor(64, 128, 128, 32, True, 33, 500, 64, 32, 163840, 1.5, half2_lanes=128, matrix_products=1024),
    8: _AMPERE,
    87: replace(_AMPERE, matrix_products=512),
    9: Multiprocessor(128, 128, 128, 32, True, 33, 550, 64, 32, 228352, 1.5, half2_lanes=128, matrix_products=1024),
}
"""By ten times the compute capability where there is an entry for it, else by its first digit.

Products of matrices are those of ``mma.sync`` with sums in float32: half of those with sums in float16 on GeForce, and on sm_90
half of what its own ``wgmma`` does.
"""


def multiprocessor_of(arch: str) -> Multiprocessor | None:
    """Return the multiprocessor of an architecture such as ``sm_53``; None for one of which nothing is known."""
    number = int(arch.removeprefix("sm_"))
    return _MULTIPROCESSORS.get(number) or _MULTIPROCESSORS.get(number // 10)
