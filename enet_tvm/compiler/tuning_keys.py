"""Keys by which a measured kernel is found again: of what it computes, and of how the templates make it today."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir

from enet_tvm.compiler.kernels.common.template import Template


def template_key(template: Template) -> str:
    """Return the key of a template, 16 hexadecimal digits; templates share it only if they make the same kernels.

    They change when the kernel at the default point does: a log never outlives the templates it was made with, and
    nobody has to remember to count a revision up.
    """
    kernel = fingerprint(template.kernel(template.default))
    return hashlib.sha256(f"{template_json(template)}{kernel}".encode()).hexdigest()[:16]


def template_json(template: Template) -> str:
    """Return the type and the fields of a template as JSON."""
    return json.dumps({"template": type(template).__name__, **asdict(template)}, sort_keys=True)  # type: ignore[call-overload]


def fingerprint(function: tvm.tirx.PrimFunc) -> str:
    """Return 16 hexadecimal digits of a function's structure, whatever its name."""
    return f"{tvm_ffi.structural_hash(function.without_attr('global_symbol')) & (2**64 - 1):016x}"


def plain(function: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """Return a copy of a function of blocks without the schedule rules that operators ask for.

    TVM has none of them for CPUs, and taking one off, which its search begins with, changes the original in place.
    """
    mod = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    schedule = s_tir.Schedule(tvm.ir.load_json(tvm.ir.save_json(mod)))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if "schedule_rule" in schedule.get(block).annotations:
            schedule.unannotate(block, "schedule_rule")
    return schedule.mod["main"]


def point_dict(point: Any) -> dict[str, Any]:
    """Return a point as JSON takes it."""
    return asdict(point)
