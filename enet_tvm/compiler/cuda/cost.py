"""The time of a kernel on a GPU, predicted from its machine code: which of the machine's parts binds it.

Each part is taken alone, as if all others waited for nothing: the multiply-adds, the issue of instructions, the path from L1 to
registers, shared memory, L2, main memory, and the latency of loads that too few threads hide. The longest of them is the
kernel's time, to which its launch adds. What the model assumes:

- A load fills registers at the rate of the path from L1, also where all threads of a warp load the same address: it still
  writes a register of each. Addresses of a warp lie together, and shared memory has no bank conflicts.
- The busiest multiprocessor decides: blocks are dealt out evenly, and its warps to its four schedulers.
- Each turn of a hot loop waits once for L1, and other warps work meanwhile, as many as registers and shared memory leave room
  for.
- Tensors cross main memory once for each kernel, as if nothing of the kernel before were left in L2. That is pessimistic where
  L2 holds a whole tensor. They cross L2 once for each block that has them: weights for all blocks of pixels, since those on one
  multiprocessor need not come to them together. What windows of neighbouring blocks share is left out.
- Multiply-adds of pairs of float16 are done by the lanes of float32 as far as they have a rate for it. Products of matrices and
  conversions between float32 and float16 have units of their own, beside which everything else goes on.
- The clock is that by which the target's peak figures were computed.

Rates per clock are those of NVIDIA's documents and of published microbenchmarks. None was measured here; the weakest are L1's
on Maxwell and Pascal (64 bytes a clock; it may be half of it for loads of 4 bytes), L2's, the time between launches, and what
``mma.sync`` reaches on sm_87 and sm_90.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from enet_tvm.compiler.cuda.machine_code import KernelCode, Operation
from enet_tvm.compiler.cuda.multiprocessor import Multiprocessor, multiprocessor_of
from enet_tvm.compiler.cuda.ptxas import KernelResources
from enet_tvm.compiler.kernels.gpu.building import WARP
from enet_tvm.compiler.kernels.gpu.geometry import Geometry
from enet_tvm.errors import UserError
from enet_tvm.targets.spec import TargetSpec

_SCHEDULERS = 4
_FLOATS = (Operation.FMA, Operation.FLOAT)
_HALVES = (Operation.HALF2_FMA, Operation.HALF2)
_GLOBAL = (Operation.LOAD_GLOBAL, Operation.STORE_GLOBAL, Operation.LOAD_LOCAL, Operation.STORE_LOCAL)
_SHARED = (Operation.LOAD_SHARED, Operation.STORE_SHARED, Operation.LOAD_MATRIX)


@dataclass(frozen=True)
class Chip:
    """A GPU as far as predictions depend on it.

    Attributes
    ----------
    arch : str
        Architecture, such as ``sm_53``.
    multiprocessors : int
        Number of multiprocessors.
    multiprocessor : Multiprocessor
        What each of them does in a clock.
    ghz : float
        Clock of the multiprocessors, in 10**9 a second.
    gbps : float
        Bandwidth of the main memory, in 10**9 bytes a second.
    """

    arch: str
    multiprocessors: int
    multiprocessor: Multiprocessor
    ghz: float
    gbps: float

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of all its figures."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def of(cls, target: TargetSpec) -> Chip:
        """Return the GPU of a target.

        Raises
        ------
        UserError
            When the target has no GPU, its peak figures are missing, or its architecture is not known.
        """
        gpu, peak = target.gpu, target.roofline
        if gpu is None:
            raise UserError(
                f"{target.name} has no GPU, and kernels of CPUs are not predicted; measure them: enet-tvm profile DIR on the "
                "machine, or name a target with a GPU (enet-tvm targets list)"
            )
        if peak is None or peak.gflops is None or peak.gbps is None:
            raise UserError(f"target {target.name}: a prediction takes the GPU's peak figures; add roofline.gflops and gbps")
        each = multiprocessor_of(gpu.arch)
        if each is None:
            raise UserError(f"target {target.name}: nothing is known of what a multiprocessor of {gpu.arch} does in a clock")
        return cls(gpu.arch, gpu.multiprocessors, each, peak.gflops / (2 * each.lanes * gpu.multiprocessors), peak.gbps)


@dataclass(frozen=True)
class Bounds:
    """Microseconds that each part of a GPU needs for a kernel, if all others waited for nothing.

    Attributes
    ----------
    fma, issue, l1, shared, l2, dram, latency : float
        Multiply-adds, instructions, loads from L1 and stores, shared memory, L2, main memory, and waiting for loads.
    matrix, conversion : float
        Products of matrices, and conversions between float32 and float16.
    """

    fma: float
    issue: float
    l1: float
    shared: float
    l2: float
    dram: float
    latency: float
    matrix: float = 0.0
    conversion: float = 0.0

    @property
    def binding(self) -> str:
        """Name of the longest."""
        figures = asdict(self)
        return max(figures, key=lambda name: figures[name])

    @property
    def longest(self) -> float:
        """The longest of them, in microseconds."""
        return max(asdict(self).values())


def executed(code: KernelCode, geometry: Geometry) -> tuple[dict[Operation, float], dict[Operation, float], float]:
    """Return what a warp executes, whatever its predicates are, and how many turns of its hot loops.

    Hot loops turn as often as it takes for the multiply-adds of the kernel, or of their part of it, and those around them as
    the kernel says.

    Returns
    -------
    (dict, dict, float)
        Instructions by operation, bytes of each thread by operation, and turns of the hot loops.
    """
    loops = code.loops
    hot = [loop for loop in loops if loop.is_hot]
    sums = sum(loop.products for loop in hot)
    # What is in no loop, or in loops of one turn, is executed once.
    looping = [(around, products) for around, products in geometry.nests if math.prod(around) > 1]
    turning = sum(products for _, products in looping) or geometry.multiply_adds
    together = max(1.0, turning / sums) if sums else 1.0
    # The parts of a kernel are known by their order; where the assembler made more or fewer loops of them, all count alike.
    nests = looping if len(looping) == len(hot) else [(geometry.loops, 0)] * len(hot)
    times = dict.fromkeys((loop.span for loop in loops), 1.0)
    turns = 0.0
    for inner, (around_it, products) in zip(hot, nests, strict=True):
        own = max(1.0, products / inner.products) if products else together
        around = sorted((loop.span for loop in loops if loop.encloses(inner)), key=lambda span: span[0] - span[1], reverse=True)
        times[inner.span], turns = own, turns + own
        # A loop around a hot one turns as often as all loops of the kernel together but those inside it.
        for depth, span in enumerate(around, start=1):
            times[span] = float(min(own, math.prod(around_it[: max(0, len(around_it) - depth)])))
    instructions, moved = dict.fromkeys(Operation, 0.0), dict.fromkeys(Operation, 0.0)
    for each in code.instructions:
        inside = [span for span in times if span[0] <= each.address <= span[1]]
        count = times[max(inside)] if inside else 1.0
        instructions[each.operation] += count
        moved[each.operation] += count * each.width
    return instructions, moved, turns


def kernel_bounds(code: KernelCode, resources: KernelResources, geometry: Geometry, chip: Chip) -> Bounds:
    """Return what binds a kernel.

    Parameters
    ----------
    code : KernelCode
        Its machine code.
    resources : KernelResources
        Registers and shared memory that it takes.
    geometry : Geometry
        Its launch, and the bytes that it moves.
    chip : Chip
        The GPU.
    """
    one = chip.multiprocessor
    instructions, moved, turns = executed(code, geometry)
    warps_of_block = -(-geometry.threads // WARP)
    blocks = -(-geometry.blocks // chip.multiprocessors)
    warps = blocks * warps_of_block
    # A scheduler has whole warps: one warp alone uses one of the four.
    per_scheduler = -(-warps // _SCHEDULERS)
    resident = min(blocks, resident_blocks(resources, geometry.threads, one))
    # Where pairs have as good as no rate, one is done in 64 steps.
    floats = sum(instructions[kind] for kind in _FLOATS)
    floats += sum(instructions[kind] for kind in _HALVES) * one.lanes / (one.half2_lanes or one.lanes / 64)
    of_matrix = max((each.products for each in code.instructions if each.operation is Operation.MATRIX), default=0)
    matrices = instructions[Operation.MATRIX] * of_matrix
    issued = sum(instructions.values())
    l1 = sum(moved[kind] for kind in _GLOBAL) * WARP * warps
    shared = sum(moved[kind] for kind in _SHARED) * WARP * warps
    if one.unified:
        l1, shared = l1 + shared, l1 + shared
    rounds = -(-blocks // max(1, resident))
    alone = turns * one.latency + issued + one.memory_latency * 2
    us = 1e-3 / chip.ghz
    return Bounds(
        fma=floats * per_scheduler * WARP * _SCHEDULERS / one.lanes * us,
        issue=issued * per_scheduler * us,
        l1=l1 / one.l1_bytes * us,
        shared=shared / one.shared_bytes * us,
        l2=geometry.block_bytes / (one.l2_bytes * chip.multiprocessors) * us,
        dram=geometry.tensor_bytes / chip.gbps * 1e-3,
        latency=rounds * alone * us,
        matrix=matrices * per_scheduler * WARP * _SCHEDULERS / one.matrix_products * us if matrices else 0.0,
        conversion=instructions[Operation.CONVERSION] * per_scheduler * WARP * _SCHEDULERS / one.conversions * us,
    )


def resident_blocks(resources: KernelResources, threads: int, one: Multiprocessor) -> int:
    """Return how many blocks of a kernel a multiprocessor has room for, at least 1."""
    warps = -(-threads // WARP)
    registers = -(-resources.registers // 8) * 8 * WARP * warps
    fits = [one.blocks, one.warps // warps, one.registers // max(1, registers)]
    if resources.shared_bytes:
        fits.append(one.shared_memory // resources.shared_bytes)
    return max(1, min(fits))
