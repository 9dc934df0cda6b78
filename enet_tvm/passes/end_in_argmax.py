"""Make the network end in labels, so that logits are neither written nor read where nobody asks for them."""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from enet_tvm.dataflow import Dataflow, Rewriter, is_call
from enet_tvm.kernels.coverage import runs_planar
from enet_tvm.ops import FusedConv2D


@tvm.ir.transform.module_pass(opt_level=0, name="EndInArgmax")
class EndInArgmax:
    """Return, instead of N x classes x H x W logits, the N x H x W uint8 class of the largest, the first of equals.

    A last convolution that a planar kernel computes takes the argmax into its epilogue; after anything else TVM's own
    argmax follows.
    """

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module whose ``main`` returns labels."""
        graph = Dataflow(mod)
        rewriter = Rewriter()
        last = _source(graph)
        inside = _fusible(graph.value(last)) and len(graph.users.get(last, [])) <= 1
        for binding in graph.bindings:
            if inside and binding.var.same_as(last):
                attrs = replace(FusedConv2D.from_call(binding.value), argmax=True)
                call = relax.Call(binding.value.op, list(binding.value.args), attrs.to_attrs())
                rewriter.replace(binding.var, rewriter.emit(rewriter.mapped(call), binding.var))
            else:
                rewriter.keep(binding)
        if inside:
            return graph.rebuilt(rewriter)
        wide = rewriter.emit(relax.op.argmax(rewriter.mapped(graph.result), axis=1), last, f"{last.name}#argmax")
        return graph.rebuilt(rewriter, rewriter.emit(relax.op.astype(wide, "uint8"), graph.result))


def _source(graph: Dataflow) -> relax.Var:
    """Return the variable that the result is another name of."""
    var = graph.result
    while isinstance(value := graph.value(var), relax.Var):
        var = value
    return var


def _fusible(value: relax.Expr | None) -> bool:
    return is_call(value, "enet.fused_conv2d") and runs_planar(FusedConv2D.from_call(value))
