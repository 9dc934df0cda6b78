"""Window pooling and unpooling in ONNX: bodies of standard operators, written into a graph and recognised in one.

The exporter leaves calls of two functions; they are expanded in place, for not every runtime knows functions. The
importer finds the bodies again and puts the calls back. Nothing here scatters.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser

DOMAIN = "enet_tvm"
DOMAIN_VERSION = 1
POOL = "max_pool2d_with_window"
UNPOOL = "max_unpool2d"

# Equal values go to the first place, as in PyTorch; a NaN has no place.
_POOL_BODY = """
max_pool2d_with_window (x) => (pooled, window)
{
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    from_0 = Constant <value_ints = [0, 0]> ()
    from_1 = Constant <value_ints = [0, 1]> ()
    from_2 = Constant <value_ints = [1, 0]> ()
    end = Constant <value_ints = [9223372036854775807, 9223372036854775807]> ()
    axes = Constant <value_ints = [2, 3]> ()
    steps = Constant <value_ints = [2, 2]> ()
    x_0 = Slice (x, from_0, end, axes, steps)
    x_1 = Slice (x, from_1, end, axes, steps)
    x_2 = Slice (x, from_2, end, axes, steps)
    at_0 = Equal (x_0, pooled)
    at_1 = Equal (x_1, pooled)
    at_2 = Equal (x_2, pooled)
    place_0 = Constant <value = uint8 {0}> ()
    place_1 = Constant <value = uint8 {1}> ()
    place_2 = Constant <value = uint8 {2}> ()
    place_3 = Constant <value = uint8 {3}> ()
    place_23 = Where (at_2, place_2, place_3)
    place_123 = Where (at_1, place_1, place_23)
    window = Where (at_0, place_0, place_123)
}
"""

# Window indices are compared as int32: not every runtime compares bytes.
_UNPOOL_BODY = """
max_unpool2d (x, window) => (plane)
{
    place = Cast <to = 6> (window)
    place_0 = Constant <value = int32 {0}> ()
    place_1 = Constant <value = int32 {1}> ()
    place_2 = Constant <value = int32 {2}> ()
    place_3 = Constant <value = int32 {3}> ()
    zero = Constant <value = float {0}> ()
    at_0 = Equal (place, place_0)
    at_1 = Equal (place, place_1)
    at_2 = Equal (place, place_2)
    at_3 = Equal (place, place_3)
    x_0 = Where (at_0, x, zero)
    x_1 = Where (at_1, x, zero)
    x_2 = Where (at_2, x, zero)
    x_3 = Where (at_3, x, zero)
    four = Concat <axis = 1> (x_0, x_1, x_2, x_3)
    plane = DepthToSpace <blocksize = 2, mode = "DCR"> (four)
}
"""


_FUNCTIONS = tuple(
    onnx.parser.parse_function(f'<domain: "{DOMAIN}", opset_import: ["" : 18]>{body}') for body in (_POOL_BODY, _UNPOOL_BODY)
)


def expand_window_calls(model: onnx.ModelProto) -> None:
    """Replace the calls of the window functions by their bodies; new names start with the call's name and a slash.

    The bodies mean the same in every version of the standard operators since 16.
    """
    bodies = {(function.domain, function.name): function for function in _FUNCTIONS}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if (function := bodies.get((node.domain, node.op_type))) is None:
            nodes.append(node)
            continue
        names = dict(zip([*function.input, *function.output], [*node.input, *node.output], strict=True))
        for inner in function.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(inner)
            copy.name = f"{node.name}/{inner.output[0]}"
            copy.input[:] = [names.setdefault(value, f"{node.name}/{value}") for value in inner.input]
            copy.output[:] = [names.setdefault(value, f"{node.name}/{value}") for value in inner.output]
            nodes.append(copy)
    _set_nodes(model.graph, nodes)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def collapse_window_calls(model: onnx.ModelProto) -> None:
    """Replace the bodies of the window functions by calls, wherever they stand in the graph; the opposite of expanding."""
    graph = model.graph
    matcher = _Matcher(graph)
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    inner: set[str] = set()
    for node in graph.node:
        for function in _FUNCTIONS:
            # The last output is the one that everything else in the body leads to.
            last = function.node[-1]
            if node.op_type == last.op_type and (found := matcher.match(function, node.output[0])) is not None:
                inputs, outputs = ([found[value] for value in values] for values in (function.input, function.output))
                name = node.name.rpartition("/")[0]
                nodes.append(onnx.helper.make_node(function.name, inputs, outputs, name=name, domain=DOMAIN))
                made.update(outputs)
                inner.update(set(found.values()).difference(inputs, outputs))
        nodes.append(node)
    if not made:
        return
    nodes = [node for node in nodes if node.domain == DOMAIN or made.isdisjoint(node.output)]
    nodes = _without_unused(nodes, inner, {output.name for output in graph.output})
    _set_nodes(graph, _in_order(nodes))
    model.opset_import.add(domain=DOMAIN, version=DOMAIN_VERSION)


class _Matcher:
    """Finds the body of a function in a graph, whatever its values are called there."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = _producers(graph.node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}

    def match(self, function: onnx.FunctionProto, value: str) -> dict[str, str] | None:
        """Return the name in the graph of each value of the function if its last output is `value`, else None."""
        names: dict[str, str] = {}
        same = self._unify(_producers(function.node), function.output[-1], value, names)
        return names if same and names.keys() >= {*function.input, *function.output} else None

    def _unify(self, body: dict[str, onnx.NodeProto], inner: str, outer: str, names: dict[str, str]) -> bool:
        if inner in names:
            return names[inner] == outer
        names[inner] = outer
        if inner not in body:
            return True  # an input
        here, there = body[inner], self.producers.get(outer)
        if here.op_type == "Constant":
            known = _constant(there) if there is not None else self._weight(outer)
            wanted = _constant(here)
            return known is not None and wanted is not None and known.dtype == wanted.dtype and np.array_equal(known, wanted)
        return (
            there is not None
            and (there.domain, there.op_type) == ("", here.op_type)
            and _attributes(there) == _attributes(here)
            and list(there.output).index(outer) == list(here.output).index(inner)
            and len(there.input) == len(here.input)
            and all(self._unify(body, *pair, names) for pair in zip(here.input, there.input, strict=True))
        )

    def _weight(self, name: str) -> np.ndarray | None:
        return onnx.numpy_helper.to_array(self.weights[name]) if name in self.weights else None


def _producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    return {output: node for node in nodes for output in node.output if output}


def _attributes(node: onnx.NodeProto) -> dict[str, bytes]:
    return {attribute.name: attribute.SerializeToString(deterministic=True) for attribute in node.attribute}


def _constant(node: onnx.NodeProto) -> np.ndarray | None:
    """Return the value of a Constant node that holds integers or a tensor."""
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    if attribute.name == "value_ints":
        return np.array(attribute.ints, np.int64)
    return onnx.numpy_helper.to_array(attribute.t) if attribute.name == "value" else None


def _without_unused(nodes: list[onnx.NodeProto], candidates: set[str], outputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes without those that make only values among `candidates` that nobody reads."""
    used, kept = set(outputs), []
    for node in reversed(nodes):
        if used.isdisjoint(node.output) and candidates.issuperset(node.output):
            continue
        used.update(node.input)
        kept.append(node)
    return kept[::-1]


def _in_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes with each after those that make its inputs, moving as few as possible."""
    missing = set(_producers(nodes))
    ordered: list[onnx.NodeProto] = []
    while nodes:
        waiting = []
        for node in nodes:
            if missing.isdisjoint(node.input):
                missing.difference_update(node.output)
                ordered.append(node)
            else:
                waiting.append(node)
        if len(waiting) == len(nodes):
            raise ValueError("the graph has a cycle")
        nodes = waiting
    return ordered


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    nodes = [*nodes]
    del graph.node[:]
    graph.node.extend(nodes)
