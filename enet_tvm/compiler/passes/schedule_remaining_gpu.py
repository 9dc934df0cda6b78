"""Threads for every kernel that no template made, by TVM's dlight rules."""

from __future__ import annotations

import tvm
from tvm.s_tir import dlight

from enet_tvm.compiler.passes.schedule_remaining import SCHEDULED
from enet_tvm.errors import UserError


@tvm.ir.transform.module_pass(opt_level=0, name="ScheduleRemainingGpu")
class ScheduleRemainingGpu:
    """Bind each unscheduled ``PrimFunc`` to the threads of a GPU; it runs under ``with target:``.

    A function whose loops are bound to nothing would run on one thread, or fail in TVM's code generator with a riddle. So
    none may be left.
    """

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with threads in every kernel.

        Raises
        ------
        UserError
            When there are no rules for a function.
        """
        scheduled = dlight.ApplyDefaultSchedule(
            dlight.gpu.Matmul(),
            dlight.gpu.GEMV(),
            dlight.gpu.Reduction(),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        )(mod)
        for name, function in scheduled.functions_items():
            if isinstance(function, tvm.tirx.PrimFunc) and not has_threads(function):
                raise UserError(f"there is no way to run '{name.name_hint}' on a GPU; compile this network for a CPU")
        return tvm.IRModule(
            {
                name: f.with_attr(SCHEDULED, True) if isinstance(f, tvm.tirx.PrimFunc) else f
                for name, f in scheduled.functions_items()
            },
            attrs=mod.attrs,
        )


def has_threads(function: tvm.tirx.PrimFunc) -> bool:
    """Whether any of a function's loops is bound to blocks or threads."""
    text = function.script()
    return any(word in text for word in ("T.thread_binding", "launch_thread", "threadIdx.", "blockIdx."))
