"""Naming the variables of an imported function after the layers of the network."""

from __future__ import annotations

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, constant, constant_value, is_call


def named_after_layers(mod: tvm.IRModule, layers: dict[str, str]) -> tvm.IRModule:
    """Name each variable after its layer; where a layer makes several, the last has the plain name.

    On the way, the reshapes that importers put around biases are applied to these constants.

    Parameters
    ----------
    mod : tvm.IRModule
        Module as an importer leaves it.
    layers : dict
        Variable name -> name of the layer whose value it is; one without an entry takes the layer of the next that has one.
    """
    graph, rewriter = Dataflow(mod), Rewriter()
    seen: dict[str, int] = {}
    names: dict[relax.Var, str] = {}
    layer = ""
    for binding in reversed(graph.bindings):
        # What a converter emits on its way to a layer's result comes just before it.
        layer = layers.get(binding.var.name, layer or binding.var.name)
        names[binding.var] = f"{layer}#{seen[layer]}" if layer in seen else layer
        seen[layer] = seen.get(layer, 0) + 1
    for binding in graph.bindings:
        value = constant_value(binding.value.args[0]) if is_call(binding.value, "relax.reshape") else None
        if value is not None:
            shape = [int(extent) for extent in binding.var.ty.shape.values]
            rewriter.replace(binding.var, constant(value.reshape(shape)))
            continue
        rewriter.replace(binding.var, rewriter.emit(rewriter.mapped(binding.value), binding.var, names[binding.var]))
    return graph.rebuilt(rewriter)
