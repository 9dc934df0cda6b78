"""Fuse the end of each bottleneck with the beginning of the next, so that one kernel of a GPU computes both.

A bottleneck whole, `reduce -> conv -> expand + shortcut`, would compute the neighbours that `conv` reads once more in each
block. Cut between `reduce` and `conv` instead, nothing is computed twice: what follows `conv` reads no neighbour.
"""

from __future__ import annotations

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D, fused_bottleneck


@tvm.ir.transform.module_pass(opt_level=0, name="FuseBottlenecks")
class FuseBottlenecks:
    """Replace ``enet.fused_conv2d`` convolution -> widening 1x1 [-> narrowing 1x1] by ``enet.fused_bottleneck``.

    The convolution's result must have no other user; that of the widening one may have, and stays an output. Of what follows
    it, the first 1x1 convolution that a template covers is taken, also where there is no convolution before it.

    Parameters
    ----------
    templates : Templates
        Templates of the device; what none of them covers is left as it is.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with fused bottlenecks."""
        graph, rewriter = Dataflow(mod), Rewriter()
        convolutions = {
            binding.var: (FusedConv2D.from_call(binding.value), binding.value.args[0])
            for binding in graph.bindings
            if is_call(binding.value, "enet.fused_conv2d")
        }
        found: dict[relax.Var, _Match] = {}
        for binding in graph.bindings:
            taken = {var for match in found.values() for var in match.parts}
            if binding.var in convolutions and (match := self._match(graph, convolutions, binding.var, taken)) is not None:
                found[binding.var] = match
        inside = {var for match in found.values() for var in match.parts} - found.keys()
        for binding in graph.bindings:
            if binding.var in found:
                found[binding.var].emit(graph, rewriter)
            elif binding.var not in inside:
                rewriter.keep(binding)
        return graph.rebuilt(rewriter)

    def _match(
        self,
        graph: Dataflow,
        convolutions: dict[relax.Var, tuple[FusedConv2D, relax.Expr]],
        expand: relax.Var,
        taken: set[relax.Var],
    ) -> _Match | None:
        """Return the most of a bottleneck around a widening convolution that a template covers, None when there is none.

        `convolutions` are those of the module, each with the data that it reads.
        """
        widening, before = convolutions[expand]
        if expand in taken or not widening.is_pointwise:
            return None
        alone = before in convolutions and before not in taken and graph.only_user(before) is not None
        reduces = [user for user in graph.users.get(expand, []) if user in convolutions and user not in taken]
        reduces = [user for user in reduces if convolutions[user][0].is_pointwise and convolutions[user][1].same_as(expand)]
        for conv in [before, None] if alone else [None]:
            for reduce in [*reduces, None]:
                spec = FusedBottleneck(
                    widening,
                    None if conv is None else convolutions[conv][0],
                    None if reduce is None else convolutions[reduce][0],
                )
                if len(spec.convolutions) > 1 and self.templates.covered_forms(spec):
                    return _Match(spec, conv, expand, reduce)
        return None


class _Match:
    """A bottleneck that was found, and the variables of its convolutions' results."""

    def __init__(self, spec: FusedBottleneck, conv: relax.Var | None, expand: relax.Var, reduce: relax.Var | None) -> None:
        self.spec = spec
        self.expand = expand
        self.reduce = reduce
        self.parts = [var for var in (conv, expand, reduce) if var is not None]

    def emit(self, graph: Dataflow, rewriter: Rewriter) -> None:
        call = rewriter.mapped(fused_bottleneck(self.spec, [graph.value(var) for var in self.parts]))
        if self.reduce is None:
            rewriter.replace(self.expand, rewriter.emit(call, self.expand))
            return
        both = rewriter.emit(call, self.expand, f"{self.reduce.name}#both")
        for place, var in enumerate((self.reduce, self.expand)):
            rewriter.replace(var, rewriter.emit(relax.TupleGetItem(both, place), var))
