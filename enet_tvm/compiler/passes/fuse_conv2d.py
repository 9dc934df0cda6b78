"""Fuse each convolution with what surrounds it into one ``enet.fused_conv2d``, so into one kernel.

The paper names the number of kernel launches, and the PReLUs between them, as what keeps ENet from its speed.
TVM's generic fusion stops at a second producer (the shortcut); here bias, shortcut (also one that is padded in
channels or max-unpooled on the way) and activation all go into the epilogue of the convolution before them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import Dataflow, Rewriter, constant, constant_value, is_call, layer_of
from enet_tvm.compiler.kernels.common.template import Templates


@tvm.ir.transform.module_pass(opt_level=0, name="FuseConv2D")
class FuseConv2D:
    """Replace every plain and transposed convolution by ``enet.fused_conv2d`` with its epilogue.

    What no template covers (groups, asymmetric padding, odd strides) is left to TVM.

    Parameters
    ----------
    templates : Templates
        Templates of the device.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with fused convolutions."""
        graph, rewriter = Dataflow(mod), Rewriter()
        chains: dict[relax.Var, _Chain] = {}
        taken: set[relax.Var] = set()
        for binding in graph.bindings:
            chain = _start(binding, graph, self.templates)
            if chain is not None:
                _extend(chain, graph, taken)
                chains[chain.end] = chain
        for binding in graph.bindings:
            chain = chains.get(binding.var)
            if chain is None:
                rewriter.keep(binding)
            else:
                rewriter.replace(binding.var, rewriter.emit(chain.call(rewriter), binding.var))
        return graph.rebuilt(rewriter)


@dataclass
class _Chain:
    """A convolution and what has been found to follow it."""

    templates: Templates
    attrs: ops.FusedConv2D
    data: relax.Expr
    weight: relax.Expr
    end: relax.Var
    bias: np.ndarray | None = None
    slope: np.ndarray | None = None
    inner_slope: np.ndarray | None = None
    residual: relax.Expr | None = None
    window: relax.Expr | None = None

    def call(self, rewriter: Rewriter) -> relax.Call:
        channels = self.attrs.out_shape[1]
        bias = np.zeros(channels, "float32") if self.bias is None else self.bias.reshape(-1)
        slope, inner_slope = (
            None if values is None else constant(np.array(np.broadcast_to(values.reshape(-1), channels)))
            for values in (self.slope, self.inner_slope)
        )
        tensors = [None if t is None else rewriter.mapped(t) for t in (self.data, self.residual, self.window)]
        data, residual, window = tensors
        return ops.fused_conv2d(self.attrs, data, self.weight, constant(bias), slope, residual, window, inner_slope)


def _start(binding: relax.VarBinding, graph: Dataflow, templates: Templates) -> _Chain | None:
    value = binding.value
    transposed = is_call(value, "relax.nn.conv2d_transpose")
    if not transposed and not is_call(value, "relax.nn.conv2d"):
        return None
    weight = constant_value(value.args[1])
    if weight is None or weight.dtype != np.float32 or int(value.attrs["groups"]) != 1:
        return None
    top, left, bottom, right = (int(p) for p in value.attrs["padding"])
    dilation = _pair(value.attrs["dilation"])
    if (top, left) != (bottom, right) or (transposed and dilation != (1, 1)):
        return None
    attrs = ops.FusedConv2D(
        data_shape=shape(value.args[0]),
        out_shape=shape(binding.var),
        kernel=(weight.shape[2], weight.shape[3]),
        strides=_pair(value.attrs["strides"]),
        padding=(top, left),
        dilation=dilation,
        transposed=transposed,
        layers=(layer_of(binding.var),),
    )
    if not templates.covered_forms(attrs):
        return None
    return _Chain(templates, attrs, value.args[0], value.args[1], binding.var)


def _extend(chain: _Chain, graph: Dataflow, taken: set[relax.Var]) -> None:
    """Lengthen the chain by its only user as long as that fits into the epilogue."""
    while (user := graph.only_user(chain.end)) is not None and user not in taken:
        value = graph.value(user)
        if is_call(value, "relax.add"):
            if not _take_add(chain, graph, value):
                return
        elif chain.attrs.activation != "none":
            return
        elif is_call(value, "relax.nn.relu"):
            chain.attrs = replace(chain.attrs, activation="relu")
        elif is_call(value, "relax.nn.prelu") and constant_value(value.args[1]) is not None:
            chain.attrs = replace(chain.attrs, activation="prelu")
            chain.slope = constant_value(value.args[1])
        else:
            return
        taken.add(user)
        chain.end = user
        chain.attrs = replace(chain.attrs, layers=tuple(dict.fromkeys((*chain.attrs.layers, layer_of(user)))))


def _take_add(chain: _Chain, graph: Dataflow, value: relax.Call) -> bool:
    """Take a bias or a shortcut into the chain; say whether it fitted."""
    left, right = value.args
    other = right if left.same_as(chain.end) else left
    known = constant_value(other)
    if known is not None:
        fits = known.ndim == 4 and known.shape == (1, chain.attrs.out_shape[1], 1, 1)
        if not fits or chain.bias is not None or chain.residual is not None or chain.attrs.activation != "none":
            return False
        chain.bias = known
        return True
    extents = tuple(int(extent) for extent in other.ty.shape.values)
    if chain.residual is not None or other.same_as(chain.end) or extents != chain.attrs.out_shape:
        return False
    made_by = graph.value(other) if graph.only_user(other) is not None else None
    kind: Literal["add", "pad", "unpool"] = "add"
    residual, window = other, None
    if is_call(made_by, "enet.max_unpool2d"):
        n, channels, height, width = shape(made_by.args[0])
        if chain.attrs.out_shape == (n, channels, 2 * height, 2 * width):
            kind, (residual, window) = "unpool", made_by.args
    elif is_call(made_by, "relax.nn.pad") and _pads_only_channels(made_by):
        kind, residual = "pad", made_by.args[0]
    # An activation so far is that of the convolution alone.
    longer = replace(
        chain.attrs,
        residual=kind,
        residual_channels=shape(residual)[1],
        inner_activation=chain.attrs.activation,
        activation="none",
    )
    if not chain.templates.covered_forms(longer):
        return False
    chain.slope, chain.inner_slope = None, chain.slope
    chain.attrs = replace(longer, layers=longer.layers if kind == "add" else (*longer.layers, layer_of(other)))
    chain.residual, chain.window = residual, window
    return True


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _pads_only_channels(pad: relax.Call) -> bool:
    widths = [int(w) for w in pad.attrs["pad_width"]]
    value = float(pad.attrs["pad_value"])
    return str(pad.attrs["pad_mode"]) == "constant" and value == 0 and not any(widths[:3] + widths[4:])


def shape(expr: relax.Expr) -> tuple[int, int, int, int]:
    """Return the static shape of a four-dimensional tensor."""
    n, c, h, w = (int(extent) for extent in expr.ty.shape.values)
    return n, c, h, w
