"""A sane schedule for every kernel that no template made: parallel outside, one vector inside."""

from __future__ import annotations

import math

import tvm
from tvm import s_tir

SCHEDULED = "tirx.is_scheduled"


@tvm.ir.transform.module_pass(opt_level=0, name="ScheduleRemaining")
class ScheduleRemaining:
    """Schedule each unscheduled ``PrimFunc`` for a CPU, block by block.

    Spatial loops are fused and run in parallel, the largest part of the innermost one that fits a vector is
    vectorised, and reductions go between the two. Untuned code for whatever a graph has besides convolutions.

    Parameters
    ----------
    lanes : int
        float32 values in a vector register of the target.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with no bare loop left."""
        scheduled = mod.clone()
        for name, function in mod.functions_items():
            if isinstance(function, tvm.tirx.PrimFunc) and not (function.attrs and function.attrs.get(SCHEDULED)):
                scheduled.update_func(name, schedule_for_cpu(function, self.lanes))
        return scheduled


def schedule_for_cpu(function: tvm.tirx.PrimFunc, lanes: int) -> tvm.tirx.PrimFunc:
    """Return the function with every block parallel and vectorised."""
    schedule = s_tir.Schedule(function)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _schedule_block(schedule, block, lanes)
    return schedule.mod["main"].with_attr(SCHEDULED, True)


def _schedule_block(schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV, lanes: int) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(iteration.iter_type) for iteration in schedule.get(block).iter_vars]
    if len(kinds) != len(loops) or not loops:
        # Loops that are no axes of the block, as in hand-written TIR: there is nothing to reorder, only to split.
        if loops:
            schedule.parallel(loops[0])
        return
    data_parallel, reduction = tvm.tirx.IterVar.DataPar, tvm.tirx.IterVar.CommReduce
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == data_parallel]
    reductions = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == reduction]
    if not spatial or len(spatial) + len(reductions) != len(loops):
        return
    extent = schedule.get(spatial[-1]).extent
    width = math.gcd(int(extent), lanes) if isinstance(extent, tvm.tirx.IntImm) else 1
    outer, vector = spatial, None
    if width > 1:
        *first, last = spatial
        head, vector = schedule.split(last, factors=[None, width])
        outer = [*first, head]
    schedule.reorder(*outer, *reductions, *([vector] if vector is not None else []))
    schedule.parallel(schedule.fuse(*outer))
    if vector is not None:
        schedule.vectorize(vector)
    if reductions:
        schedule.decompose_reduction(block, reductions[0])
