"""Fuse ENet's initial block with the pooling and the 2x2 convolution after it, so that its result is never in memory."""

from __future__ import annotations

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call, is_result, layer_of
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.ops import InitialDownsampler, initial_downsampler


@tvm.ir.transform.module_pass(opt_level=0, name="FuseInitialDownsampler")
class FuseInitialDownsampler:
    """Replace ``enet.initial_block`` and both that read it, pooling and convolution, by ``enet.initial_downsampler``.

    A block that anything else reads is left as it is, and so is one that no template covers.

    Parameters
    ----------
    templates : Templates
        Templates of the device.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with fused blocks."""
        graph, rewriter = Dataflow(mod), Rewriter()
        inside: set[relax.Var] = set()
        for binding in graph.bindings:
            readers = self._readers(graph, binding)
            if readers is not None:
                inside |= self._emit(graph, rewriter, binding, *readers)
            elif binding.var not in inside:
                rewriter.keep(binding)
        return graph.rebuilt(rewriter)

    def _readers(self, graph: Dataflow, binding: relax.VarBinding) -> tuple[relax.Var, relax.Var] | None:
        """Return the pooling and the convolution that read a block, None where something else does."""
        users = list(dict.fromkeys(graph.users.get(binding.var, [])))
        if not is_call(binding.value, "enet.initial_block") or len(users) != 2 or is_result(graph, binding.var):
            return None
        pools = [user for user in users if graph.is_taken_apart(user, "enet.max_pool2d_with_window")]
        convolutions = [user for user in users if is_call(graph.value(user), "enet.fused_conv2d")]
        if len(pools) != 1 or len(convolutions) != 1:
            return None
        conv = graph.producer[convolutions[0]]
        spec = InitialDownsampler.from_call(initial_downsampler(binding.value, conv))
        # What is read may also be the shortcut of the convolution.
        fits = conv.args[0].same_as(binding.var) and self.templates.covered_forms(spec)
        return (pools[0], convolutions[0]) if fits else None

    def _emit(
        self, graph: Dataflow, rewriter: Rewriter, block: relax.VarBinding, pool: relax.Var, conv: relax.Var
    ) -> set[relax.Var]:
        """Emit a fused block and what is taken of it; return the variables that it stands for beside the block's own."""
        taken = {user: graph.producer[user].index for user in graph.users.get(pool, [])}
        maxima = [layer_of(var) for var, place in taken.items() if place == 0]
        call = rewriter.mapped(initial_downsampler(block.value, graph.producer[conv], maxima))
        names = list(InitialDownsampler.from_call(call).outputs)
        whole = rewriter.emit(call, block.var, f"{conv.name}#all")
        for var, name in {conv: "reduced", **{var: ("pooled", "window")[place] for var, place in taken.items()}}.items():
            rewriter.replace(var, rewriter.emit(relax.TupleGetItem(whole, names.index(name)), var))
        return {conv, pool, *taken}
