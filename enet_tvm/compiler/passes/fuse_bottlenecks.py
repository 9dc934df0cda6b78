"""Fuse the end of each bottleneck with the beginning of the next, so that one kernel of a GPU computes both.

A bottleneck whole, `reduce -> conv -> expand + shortcut`, would compute the neighbours that `conv` reads once more in each
block. Cut between `reduce` and `conv` instead, nothing is computed twice: what follows `conv` reads no neighbour. Where the
next bottleneck downsamples, its pooling and its 2x2 convolution with stride 2 read no other cell of 2x2 pixels; where it
upsamples, the 1x1 convolution of its shortcut reads the same tensor as that which narrows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call, is_result, layer_of
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D, fused_bottleneck

_Convolutions = dict[relax.Var, tuple[FusedConv2D, relax.Expr]]
"""The convolutions of a module, each with the data that it reads."""


@tvm.ir.transform.module_pass(opt_level=0, name="FuseBottlenecks")
class FuseBottlenecks:
    """Replace ``enet.fused_conv2d`` convolution -> widening 1x1 [-> narrowing] by ``enet.fused_bottleneck``.

    The convolution's result must have no other user; that of the widening one may have, and then stays an output. Of what
    follows it, the first 1x1 convolution, or 2x2 convolution with stride 2, that a template covers is taken, also where
    there is no convolution before it, and so is ``enet.max_pool2d_with_window``, or else another 1x1 convolution.

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
        inside = {var for match in found.values() for var in match.inside(graph)}
        for binding in graph.bindings:
            if binding.var in found:
                found[binding.var].emit(graph, convolutions, rewriter)
            elif binding.var not in inside:
                rewriter.keep(binding)
        return graph.rebuilt(rewriter)

    def _match(self, graph: Dataflow, convolutions: _Convolutions, expand: relax.Var, taken: set[relax.Var]) -> _Match | None:
        """Return the most of a bottleneck around a widening convolution that a template covers, None when there is none."""
        widening, before = convolutions[expand]
        if expand in taken or not widening.is_pointwise:
            return None
        alone = before in convolutions and before not in taken and graph.only_user(before) is not None
        users = list(dict.fromkeys(graph.users.get(expand, [])))
        reduces = [
            user for user in users if user in convolutions and user not in taken and convolutions[user][1].same_as(expand)
        ]
        pools = [user for user in users if graph.is_taken_apart(user, "enet.max_pool2d_with_window")]
        for conv in [before, None] if alone else [None]:
            for reduce in [*reduces, None]:
                others = [] if reduce is None else [user for user in reduces if user is not reduce]
                for pool, beside in [*((pool, None) for pool in pools), *((None, other) for other in others), (None, None)]:
                    match = _Match(expand, conv, reduce, pool, beside)
                    if len(match.parts) > 1 and self.templates.covered_forms(match.spec(graph, convolutions)):
                        return match
        return None


@dataclass(frozen=True)
class _Match:
    """The variables of a bottleneck that was found: the results of its convolutions and of its pooling."""

    expand: relax.Var
    conv: relax.Var | None
    reduce: relax.Var | None
    pool: relax.Var | None
    beside: relax.Var | None

    @property
    def parts(self) -> list[relax.Var]:
        """Those of them that there are, convolutions in the order of `FusedBottleneck.convolutions`."""
        return [var for var in (self.conv, self.expand, self.beside, self.reduce, self.pool) if var is not None]

    def spec(self, graph: Dataflow, convolutions: _Convolutions) -> FusedBottleneck:
        """Return what it computes; the layer of the pooling is among those of the convolution that reads the same."""
        conv, reduce, beside = (None if var is None else convolutions[var][0] for var in (self.conv, self.reduce, self.beside))
        if self.pool is not None and reduce is not None:
            maxima = [layer_of(var) for var, place in self._taken_of_pool(graph) if place == 0]
            reduce = replace(reduce, layers=(*maxima, *reduce.layers))
        others = set(graph.users.get(self.expand, [])) - set(self.parts)
        kept = bool(others) or is_result(graph, self.expand)
        return FusedBottleneck(convolutions[self.expand][0], conv, reduce, self.pool is not None, kept, beside)

    def inside(self, graph: Dataflow) -> set[relax.Var]:
        """Return the variables that are emitted together with that of the widening convolution."""
        return {*self.parts, *(var for var, _ in self._taken_of_pool(graph))} - {self.expand}

    def emit(self, graph: Dataflow, convolutions: _Convolutions, rewriter: Rewriter) -> None:
        """Emit the bottleneck and what is taken of it, in place of the widening convolution."""
        spec = self.spec(graph, convolutions)
        call = rewriter.mapped(fused_bottleneck(spec, [graph.value(var) for var in self.parts if var in convolutions]))
        results = [("out", self.expand)] if self.reduce is None else [("reduced", self.reduce), ("out", self.expand)]
        results += [] if self.beside is None else [("beside_out", self.beside)]
        results += [(("pooled", "window")[place], var) for var, place in self._taken_of_pool(graph)]
        names = list(spec.outputs)
        first = self.expand if self.reduce is None else self.reduce
        if len(names) == 1:
            rewriter.replace(first, rewriter.emit(call, first))
            return
        whole = rewriter.emit(call, self.expand, f"{first.name}#all")
        for name, var in results:
            if name in names:
                rewriter.replace(var, rewriter.emit(relax.TupleGetItem(whole, names.index(name)), var))

    def _taken_of_pool(self, graph: Dataflow) -> list[tuple[relax.Var, int]]:
        """Return the variables that are a result of the pooling, and which."""
        users = [] if self.pool is None else graph.users.get(self.pool, [])
        return [(user, item.index) for user in users if isinstance(item := graph.value(user), relax.TupleGetItem)]
