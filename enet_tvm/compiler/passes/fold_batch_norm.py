"""Fold every batch norm into the convolutions that feed it.

TVM's ``FoldBatchnormToConv2D`` knows a convolution directly followed by a batch norm. ENet also normalises after
transposed convolutions, after a convolution's bias, and after the concatenation of its initial block; a batch
norm left in the graph moves results by 3e-4, which flips near-ties of max pooling and with them whole features.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, constant, constant_value, is_call


@tvm.ir.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """Replace each batch norm by a scale pushed into weights, and a bias.

    Where the scale meets something without weights (pooling, say), it stays there as a multiplication.
    """

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module without batch norms."""
        graph, rewriter = Dataflow(mod), Rewriter()
        for binding in graph.bindings:
            value = binding.value
            norm = graph.value(value.tuple_value) if isinstance(value, relax.TupleGetItem) else None
            if is_call(norm, "relax.nn.batch_norm") and value.index == 0:
                scale, shift = _affine_of(norm, binding.var.name)
                rewriter.replace(binding.var, _fold(graph, rewriter, norm.args[0], scale, shift, binding.var))
            else:
                rewriter.keep(binding)
        return graph.rebuilt(rewriter)


def _affine_of(norm: relax.Call, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch norm as (scale, shift) per channel, in double precision: folding adds no rounding of its own."""
    statistics = [constant_value(argument) for argument in norm.args[1:]]
    if bool(norm.attrs["training"]) or int(norm.attrs["axis"]) != 1 or any(s is None for s in statistics):
        raise ValueError(f"batch norm '{name}' has no fixed statistics per channel; it cannot be folded")
    gamma, beta, mean, variance = (s.astype(np.float64) for s in statistics if s is not None)
    scale = gamma / np.sqrt(variance + float(norm.attrs["epsilon"]))
    return scale, beta - mean * scale


def _fold(
    graph: Dataflow, rewriter: Rewriter, var: relax.Var, scale: np.ndarray, shift: np.ndarray, like: relax.Var
) -> relax.Var:
    """Emit ``var * scale + shift`` as a variable like `like`, computing `var` anew with the scale in its weights."""
    value = graph.value(var) if graph.only_user(var) is not None else None
    if is_call(value, "relax.nn.conv2d") or is_call(value, "relax.nn.conv2d_transpose"):
        weight = constant_value(value.args[1])
        if weight is not None and int(value.attrs["groups"]) == 1:
            # OIHW, or IOHW when transposed: the output channel is what the norm scales.
            axes = (1, -1, 1, 1) if is_call(value, "relax.nn.conv2d_transpose") else (-1, 1, 1, 1)
            folded = constant((weight * scale.reshape(axes)).astype(weight.dtype))
            product = rewriter.emit(relax.Call(value.op, [rewriter.mapped(value.args[0]), folded], value.attrs), var)
            return rewriter.emit(relax.op.add(product, per_channel(shift, weight.dtype)), like)
    if is_call(value, "relax.add"):
        bias = constant_value(value.args[1])
        if bias is not None and bias.shape == (1, scale.size, 1, 1):
            return _fold(graph, rewriter, value.args[0], scale, bias.reshape(-1) * scale + shift, like)
    if is_call(value, "relax.concat") and int(value.attrs["axis"]) == 1:
        parts, start = [], 0
        for part in value.args[0].fields:
            channels = slice(start, start := start + int(part.ty.shape.values[1]))
            parts.append(_fold(graph, rewriter, part, scale[channels], shift[channels], part))
        return rewriter.emit(relax.op.concat(parts, axis=1), like)
    dtype = var.ty.dtype.dtype
    scaled = rewriter.emit(relax.op.multiply(rewriter.mapped(var), per_channel(scale, dtype)), var)
    return rewriter.emit(relax.op.add(scaled, per_channel(shift, dtype)), like)


def per_channel(values: np.ndarray, dtype: object) -> relax.Constant:
    """Return a vector as a constant that broadcasts over the channels of an N x C x H x W tensor."""
    return constant(values.reshape(1, -1, 1, 1).astype(str(dtype)))
