"""Recognise ENet's initial block, whose five operators read the picture twice and write it three times."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import Dataflow, Rewriter, constant, constant_value, is_call, layer_of
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.ops.layout import logical_shape


@tvm.ir.transform.module_pass(opt_level=0, name="FuseInitialBlock")
class FuseInitialBlock:
    """Replace convolution | pooling -> concatenation -> PReLU or ReLU by ``enet.initial_block``.

    Expects batch norms to be folded: the pooled half is then a multiplication and an addition.

    Parameters
    ----------
    templates : Templates
        Templates of the device; what none of them covers is left as it is.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with the block as one operator, or as it was if there is none."""
        graph, rewriter = Dataflow(mod), Rewriter()
        for binding in graph.bindings:
            fused = _match(graph, rewriter, binding, self.templates)
            if fused is None:
                rewriter.keep(binding)
            else:
                rewriter.replace(binding.var, rewriter.emit(fused, binding.var))
        return graph.rebuilt(rewriter)


def _match(graph: Dataflow, rewriter: Rewriter, binding: relax.VarBinding, templates: Templates) -> relax.Call | None:
    value = binding.value
    if is_call(value, "relax.nn.prelu"):
        slope = constant_value(value.args[1])
    elif is_call(value, "relax.nn.relu"):
        slope = np.zeros(1, "float32")
    else:
        return None
    concat = _sole(graph, value.args[0])
    if slope is None or not is_call(concat, "relax.concat") or len(concat.args[0].fields) != 2:
        return None
    filtered, pooled = concat.args[0].fields
    convolution, bias = _affine(graph, filtered, "relax.add")
    scaled, shift = _affine(graph, pooled, "relax.add")
    pool, scale = _affine(graph, scaled, "relax.multiply")
    convolution, pool = _sole(graph, convolution), _sole(graph, pool)
    if bias is None or shift is None or scale is None:
        return None
    if not (is_call(convolution, "relax.nn.conv2d") and is_call(pool, "relax.nn.max_pool2d")):
        return None
    weight = constant_value(convolution.args[1])
    height, width = (int(s) for s in convolution.args[0].ty.shape.values[2:])
    if (
        weight is None
        or weight.shape[2:] != (3, 3)
        or not convolution.args[0].same_as(pool.args[0])
        or _ints(convolution, "strides") != [2, 2]
        or _ints(convolution, "padding") != [1, 1, 1, 1]
        or _ints(convolution, "dilation") != [1, 1]
        or (_ints(pool, "pool_size"), set(_ints(pool, "padding"))) not in (([2, 2], {0}), ([3, 3], {1}))
        or _ints(pool, "strides") != [2, 2]
        or _ints(pool, "dilation") != [1, 1]
        or height % 2
        or width % 2
    ):
        return None
    layers = tuple(dict.fromkeys(layer_of(var) for var in (filtered, pooled, value.args[0], binding.var)))
    shape = logical_shape(convolution.args[0])
    attrs = ops.InitialBlockAttrs(shape, weight.shape[0], _ints(pool, "pool_size")[0], layers=layers)
    if not templates.covered_forms(attrs):
        return None
    vectors = [
        constant(v.reshape(-1)) for v in (bias, scale, shift, np.broadcast_to(slope.reshape(-1), concat_channels(concat)))
    ]
    data = rewriter.mapped(convolution.args[0])
    return ops.initial_block(attrs, data, convolution.args[1], *vectors)


def concat_channels(concat: relax.Call) -> int:
    """Return the channels of a concatenation's result."""
    return int(concat.ty.shape.values[1])


def _sole(graph: Dataflow, var: relax.Expr | None) -> relax.Expr | None:
    """Return what makes `var` if `var` is used once, else None."""
    return graph.value(var) if isinstance(var, relax.Var) and graph.only_user(var) is not None else None


def _affine(graph: Dataflow, var: relax.Expr | None, operator: str) -> tuple[relax.Expr | None, np.ndarray | None]:
    """Return (x, constant) when `var` is ``operator(x, constant)`` and used once."""
    value = _sole(graph, var)
    return (value.args[0], constant_value(value.args[1])) if is_call(value, operator) else (None, None)


def _ints(call: relax.Call, attribute: str) -> list[int]:
    return [int(v) for v in call.attrs[attribute]]
