"""Make the network end in labels, so that logits are neither written nor read where nobody asks for them."""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.ops import FusedConv2D


@tvm.ir.transform.module_pass(opt_level=0, name="EndInArgmax")
class EndInArgmax:
    """Return, instead of N x classes x H x W logits, the N x H x W uint8 class of the largest, the first of equals.

    A last convolution that has a kernel with the argmax in its epilogue becomes that; after anything else TVM's own
    argmax follows.

    Parameters
    ----------
    templates : Templates
        Templates of the device.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module whose ``main`` returns labels."""
        graph = Dataflow(mod)
        rewriter = Rewriter()
        last = _source(graph)
        attrs = self._labelling(graph.value(last)) if len(graph.users.get(last, [])) <= 1 else None
        for binding in graph.bindings:
            if attrs is not None and binding.var.same_as(last):
                call = relax.Call(binding.value.op, list(binding.value.args), attrs.to_attrs())
                rewriter.replace(binding.var, rewriter.emit(rewriter.mapped(call), binding.var))
            else:
                rewriter.keep(binding)
        if attrs is not None:
            return graph.rebuilt(rewriter)
        wide = rewriter.emit(relax.op.argmax(rewriter.mapped(graph.result), axis=1), last, f"{last.name}#argmax")
        return graph.rebuilt(rewriter, rewriter.emit(relax.op.astype(wide, "uint8"), graph.result))

    def _labelling(self, value: relax.Expr | None) -> FusedConv2D | None:
        """Return a convolution with the argmax in its epilogue, None where there is no kernel for that."""
        if not is_call(value, "enet.fused_conv2d"):
            return None
        attrs = replace(FusedConv2D.from_call(value), argmax=True)
        return attrs if self.templates.covered_forms(attrs) else None


def _source(graph: Dataflow) -> relax.Var:
    """Return the variable that the result of ``main`` is bound to, through any aliases."""
    var = graph.result
    while isinstance(value := graph.value(var), relax.Var):
        var = value
    return var
