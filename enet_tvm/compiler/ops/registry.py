"""Registering Relax operators from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.ir import _ffi_api

InferType = Callable[[relax.Call], Any]
Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def register_op(name: str, summary: str, infer_type: InferType, legalize: Legalize | None = None) -> tvm.ir.Op:
    """Register a pure Relax operator and return it; registering it again replaces its attributes.

    Parameters
    ----------
    name : str
        Name of the operator with its dialect, such as ``enet.pack``.
    summary : str
        Sentence that says what it computes.
    infer_type : callable
        Call -> Relax type of its result.
    legalize : callable, optional
        Function by which ``LegalizeOps`` replaces a call; without it the project's own lowering must come first.
    """
    _ffi_api.RegisterOp(name, summary)
    op = tvm.ir.Op.get(name)
    op.set_attr("FInferType", lambda call, _builder: infer_type(call))
    op.set_attr("FPurity", True)
    if legalize is not None:
        op.set_attr("FLegalize", legalize)
    return op


def static_shape(expr: relax.Expr) -> tuple[int, ...]:
    """Return a tensor expression's shape as integers."""
    return tuple(int(extent) for extent in expr.ty.shape.values)
