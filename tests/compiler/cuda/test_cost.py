"""The model of a GPU's time, on kernels that a person can count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enet_tvm.compiler.cuda.cost import Bounds, Chip, executed, kernel_bounds, resident_blocks
from enet_tvm.compiler.cuda.machine_code import Instruction, KernelCode, Operation
from enet_tvm.compiler.cuda.multiprocessor import Multiprocessor
from enet_tvm.compiler.cuda.ptxas import KernelResources
from enet_tvm.compiler.kernels.gpu.geometry import Geometry
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target

PLAIN = Multiprocessor(
    lanes=128,
    l1_bytes=64,
    shared_bytes=128,
    l2_bytes=32,
    unified=False,
    latency=80,
    memory_latency=400,
    warps=64,
    blocks=32,
    shared_memory=65536,
    launch_us=2.0,
)
CHIP = Chip("sm_53", 2, PLAIN, 1.0, 25.0)
SMALL = KernelResources("k", 32, 0, 0, 0)


def code(*operations: tuple[Operation, int], loops: tuple[tuple[int, int], ...] = ()) -> KernelCode:
    """Return instructions of 16 bytes each, with branches back from one to another (by their numbers) added."""
    made = [Instruction(16 * i, operation, width) for i, (operation, width) in enumerate(operations)]
    for first, last in loops:
        made[last] = Instruction(16 * last, Operation.BRANCH, target=16 * first)
    return KernelCode("k", tuple(made))


PARTS = (
    (Operation.OTHER, 0),
    (Operation.OTHER, 0),  # The outer loop begins,
    (Operation.LOAD_GLOBAL, 16),  # and the inner one.
    (Operation.FMA, 0),
    (Operation.FMA, 0),
    (Operation.BRANCH, 0),
    (Operation.BRANCH, 0),
    (Operation.STORE_GLOBAL, 4),
)
NEST = code(*PARTS, loops=((2, 5), (1, 6)))


def test_hot_loops_turn_until_all_is_multiplied():
    """Of three turns outside and four inside, with two products in each."""
    instructions, moved, turns = executed(NEST, Geometry(1, 32, 24, (3, 4)))
    assert turns == 12
    assert instructions[Operation.FMA] == 24
    assert moved[Operation.LOAD_GLOBAL] == 12 * 16
    assert moved[Operation.STORE_GLOBAL] == 4
    assert instructions[Operation.OTHER] == 1 + 3
    assert instructions[Operation.BRANCH] == 12 + 3


def test_straight_code_is_executed_once():
    instructions, _, turns = executed(code((Operation.FMA, 0), (Operation.FLOAT, 0)), Geometry(1, 32, 1, ()))
    assert (instructions[Operation.FMA], instructions[Operation.FLOAT], turns) == (1, 1, 0)


def test_what_each_part_needs():
    """Sixteen blocks of 128 threads on two multiprocessors: 32 warps on each, eight for a scheduler."""
    bounds = kernel_bounds(NEST, SMALL, Geometry(16, 128, 24, (3, 4), tensor_bytes=50_000, block_bytes=80_000), CHIP)
    issued = 12 * 4 + 3 * 2 + 2
    assert bounds.fma == pytest.approx(24 * 8 * 1e-3)
    assert bounds.issue == pytest.approx(issued * 8 * 1e-3)
    assert bounds.l1 == pytest.approx((12 * 16 + 4) * 32 * 32 / 64 * 1e-3)
    assert bounds.shared == 0
    assert bounds.l2 == pytest.approx(80_000 / 64 * 1e-3)
    assert bounds.dram == pytest.approx(2.0)
    assert bounds.latency == pytest.approx((12 * 80 + issued + 800) * 1e-3)
    assert bounds.binding == "l1"
    assert bounds.longest == bounds.l1


def test_one_memory_for_l1_and_shared_has_one_path():
    both = code((Operation.LOAD_GLOBAL, 16), (Operation.LOAD_SHARED, 16), (Operation.FMA, 0))
    apart = kernel_bounds(both, SMALL, Geometry(2, 128, 1, ()), CHIP)
    unified = replace(CHIP, multiprocessor=replace(PLAIN, unified=True))
    together = kernel_bounds(both, SMALL, Geometry(2, 128, 1, ()), unified)
    assert together.l1 == 2 * apart.l1
    assert apart.shared == apart.l1 / 2


def test_blocks_wait_for_room():
    """With 128 registers a thread, 16 warps fit: four blocks at a time of the eight that a multiprocessor gets."""
    crowded = KernelResources("k", 128, 0, 0, 0)
    assert resident_blocks(crowded, 128, PLAIN) == 4
    assert resident_blocks(KernelResources("k", 32, 0, 0, 40_000), 128, PLAIN) == 1
    assert resident_blocks(SMALL, 128, PLAIN) == 16
    once, twice = (kernel_bounds(NEST, each, Geometry(16, 128, 24, (3, 4)), CHIP).latency for each in (SMALL, crowded))
    assert twice == 2 * once


def test_the_clock_is_that_of_the_peak_figures():
    chip = Chip.of(load_target("jetson-tx1"))
    assert (chip.multiprocessors, chip.gbps) == (2, 25.6)
    assert chip.ghz == pytest.approx(0.998, abs=0.001)


def test_what_cannot_be_predicted():
    with pytest.raises(UserError, match="native has no GPU, and kernels of CPUs are not predicted; measure them"):
        Chip.of(load_target("native"))
    target = load_target("jetson-tx1")
    with pytest.raises(UserError, match=r"takes the GPU's peak figures; add roofline\.gflops"):
        Chip.of(target.model_copy(update={"roofline": None}))
    assert target.gpu is not None
    old = target.model_copy(update={"gpu": target.gpu.model_copy(update={"arch": "sm_35"})})
    with pytest.raises(UserError, match="nothing is known of what a multiprocessor of sm_35 does"):
        Chip.of(old)


def test_the_longest_binds():
    assert Bounds(1, 2, 3, 4, 9, 6, 7).binding == "l2"


def test_pairs_of_halves_count_twice_and_share_the_lanes():
    """Of 24 products, two to an instruction, twelve turn; they take what float32's multiply-adds would, if there is a rate."""
    halves = code(*((Operation.HALF2_FMA if op is Operation.FMA else op, width) for op, width in PARTS), loops=((2, 5), (1, 6)))
    geometry = Geometry(16, 128, 24, (3, 4))
    instructions, _, turns = executed(halves, geometry)
    assert (turns, instructions[Operation.HALF2_FMA]) == (6, 12)
    fast = replace(CHIP, multiprocessor=replace(PLAIN, half2_lanes=128))
    slow = replace(CHIP, multiprocessor=replace(PLAIN, half2_lanes=0))
    assert kernel_bounds(halves, SMALL, geometry, fast).fma == pytest.approx(12 * 8 * 1e-3)
    assert kernel_bounds(halves, SMALL, geometry, slow).fma == pytest.approx(12 * 64 * 8 * 1e-3)


def test_matrices_and_conversions_have_units_of_their_own():
    made = [Instruction(0, Operation.MATRIX, of_matrices=64), Instruction(16, Operation.CONVERSION)]
    fast = replace(CHIP, multiprocessor=replace(PLAIN, matrix_products=1024, conversions=32))
    bounds = kernel_bounds(KernelCode("k", tuple(made)), SMALL, Geometry(16, 128, 64, ()), fast)
    assert bounds.matrix == pytest.approx(64 * 32 * 32 / 1024 * 1e-3)
    assert bounds.conversion == pytest.approx(32 * 32 / 32 * 1e-3)
    assert bounds.fma == 0
