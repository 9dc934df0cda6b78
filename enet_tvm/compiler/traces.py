"""Schedules that MetaSchedule found, as traces of a tuning log, applied to functions."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir

from enet_tvm.compiler.passes.schedule_remaining import SCHEDULED
from enet_tvm.compiler.tuning_keys import plain


def apply_trace(function: tvm.tirx.PrimFunc, trace: Any) -> tvm.tirx.PrimFunc:
    """Return a function scheduled as `trace` says.

    Raises
    ------
    ValueError
        When the trace does not fit the function.
    """
    from tvm.s_tir.schedule import Trace

    schedule = s_tir.Schedule(tvm.IRModule({"main": plain(function)}))
    try:
        Trace.apply_json_to_schedule(trace, schedule)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    scheduled = schedule.mod["main"].with_attr(SCHEDULED, True)
    return scheduled if "global_symbol" in (function.attrs or {}) else scheduled.without_attr("global_symbol")
