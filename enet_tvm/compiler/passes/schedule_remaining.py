"""A sane schedule for every kernel that no template made: parallel outside, one vector inside."""

from __future__ import annotations

import math

import tvm
from tvm import s_tir

from enet_tvm.compiler.kernels.common.choices import DEFAULTS, Choices

SCHEDULED = "tirx.is_scheduled"

_MOST_PARTS = 64


@tvm.ir.transform.module_pass(opt_level=0, name="ScheduleRemaining")
class ScheduleRemaining:
    """Schedule each unscheduled ``PrimFunc`` for a CPU, block by block.

    Spatial loops are fused and run in parallel, the largest part of the innermost one that fits a vector is
    vectorised, and reductions go between the two. For whatever a graph has besides convolutions.

    Parameters
    ----------
    lanes : int
        float32 values in a vector register of the target.
    choices : Choices
        Choice of the schedules of functions that were tuned.
    """

    def __init__(self, lanes: int, choices: Choices = DEFAULTS) -> None:
        self.lanes = lanes
        self.choices = choices

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with no bare loop left."""
        scheduled = mod.clone()
        for name, function in mod.functions_items():
            if isinstance(function, tvm.tirx.PrimFunc) and not (function.attrs and function.attrs.get(SCHEDULED)):
                tuned = self.choices.schedule(str(name.name_hint), function)
                scheduled.update_func(name, schedule_for_cpu(function, self.lanes) if tuned is None else tuned)
        return scheduled


def schedule_for_cpu(function: tvm.tirx.PrimFunc, lanes: int) -> tvm.tirx.PrimFunc:
    """Return the function with every block parallel and vectorised; hand-written loops stay as they are."""
    if not is_blocks(function):
        return function.with_attr(SCHEDULED, True)
    schedule = s_tir.Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    for block in blocks:
        if not schedule.get_loops(block):
            schedule.add_unit_loop(block)  # rfactor fails beside a block without loops.
    for block in blocks:
        _schedule_block(schedule, block, lanes)
    return schedule.mod["main"].with_attr(SCHEDULED, True)


def is_blocks(function: tvm.tirx.PrimFunc) -> bool:
    """Whether a function is made of blocks under a root, as tensor expressions are; TOPI's IR builder makes others."""
    body = function.body
    return isinstance(body, s_tir.SBlockRealize) and str(body.block.name_hint) == "root"


def _schedule_block(schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV, lanes: int) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(iteration.iter_type) for iteration in schedule.get(block).iter_vars]
    if len(kinds) != len(loops):
        return  # Loops that are no axes of the block, as in hand-written TIR, or that of a single value.
    data_parallel, reduction = tvm.tirx.IterVar.DataPar, tvm.tirx.IterVar.CommReduce
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == data_parallel]
    reductions = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == reduction]
    if len(spatial) + len(reductions) != len(loops):
        return
    if not spatial:
        _schedule_full_reduction(schedule, block, reductions, lanes)
        return
    # A trailing axis of one value, such as a block of one channel, has no vector to offer.
    place = max((i for i, loop in enumerate(spatial) if _extent(schedule, loop) > 1), default=len(spatial) - 1)
    last, outer = spatial[place], [*spatial[:place], *spatial[place + 1 :]]
    width = math.gcd(_extent(schedule, last), lanes)
    if width > 1 and 2 * width >= lanes:
        head, inner = schedule.split(last, factors=[None, width])
        schedule.vectorize(inner)
        outer.append(head)
    elif outer:
        # Rows that only a small part of a vector divides are left whole: LLVM makes vectors and a remainder of them.
        inner = last
    else:
        outer, inner = [last], None
    schedule.reorder(*outer, *reductions, *([] if inner is None else [inner]))
    schedule.parallel(schedule.fuse(*outer))
    if reductions:
        schedule.decompose_reduction(block, reductions[0])


def _schedule_full_reduction(
    schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV, loops: list[s_tir.schedule.LoopRV], lanes: int
) -> None:
    """Reduce to a single value by way of vectors of partial results, which are computed in parallel."""
    fused = schedule.fuse(*loops)
    width = math.gcd(_extent(schedule, fused), lanes)
    parts = max(d for d in range(1, _MOST_PARTS + 1) if _extent(schedule, fused) // width % d == 0)
    part, rest, lane = schedule.split(fused, factors=[parts, None, width])
    schedule.reorder(part, lane, rest)
    partial = schedule.rfactor(schedule.fuse(part, lane), factor_axis=0)
    _schedule_block(schedule, partial, lanes)


def _extent(schedule: s_tir.Schedule, loop: s_tir.schedule.LoopRV) -> int:
    """Return a loop's extent, 1 when it is not constant."""
    extent = schedule.get(loop).extent
    return int(extent) if isinstance(extent, tvm.tirx.IntImm) else 1
