"""The ONNX bodies compute what PyTorch does, and are found again in a graph whatever its names."""

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from enet_tvm.compiler.frontend.onnx_window import DOMAIN, POOL, UNPOOL, collapse_window_calls, expand_window_calls

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)).map(
    lambda s: (s[0], s[1], 2 * s[2], 2 * s[3])
)
FEW_VALUES = st.sampled_from([-2.0, -1.0, 0.0, 1.0])  # ties in nearly every window


def calls(opset=18):
    """Return a model that pools, and unpools another tensor by the window indices."""
    sides = ["n", "c", "h", "w"]
    graph = oh.make_graph(
        [
            oh.make_node(POOL, ["x"], ["pooled", "window"], name="a.pool", domain=DOMAIN),
            oh.make_node("Neg", ["pooled"], ["negated"]),
            oh.make_node(UNPOOL, ["negated", "window"], ["unpooled"], name="b.unpool", domain=DOMAIN),
        ],
        "g",
        [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sides)],
        [
            oh.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["n", "c", "i", "j"]),
            oh.make_tensor_value_info("window", onnx.TensorProto.UINT8, ["n", "c", "i", "j"]),
            oh.make_tensor_value_info("unpooled", onnx.TensorProto.FLOAT, sides),
        ],
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset), oh.make_opsetid(DOMAIN, 1)], ir_version=10)


def expanded(opset=18):
    model = calls(opset)
    expand_window_calls(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model):
    return [(node.domain, node.op_type) for node in model.graph.node]


@pytest.fixture(scope="module", params=[18, 23])
def session(request):
    return onnxruntime.InferenceSession(expanded(request.param).SerializeToString())


@given(array=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW_VALUES, st.floats(-1e6, 1e6, width=32)), fill=FEW_VALUES))
@settings(max_examples=40, deadline=None)
def test_bodies_compute_what_pytorch_does(session, array):
    x = torch.from_numpy(array)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    pooled, window, unpooled = map(torch.from_numpy, session.run(None, {"x": array}))
    assert torch.equal(pooled, expected)
    assert torch.equal(window.long(), indices // x.shape[3] % 2 * 2 + indices % 2)
    assert torch.equal(unpooled, F.max_unpool2d(-expected, indices, 2))


def test_expanding_leaves_standard_operators_that_do_not_scatter():
    model = expanded()
    assert {domain for domain, _ in kinds(model)} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not any("Scatter" in kind or kind == "MaxUnpool" for _, kind in kinds(model))
    assert {node.name.split("/")[0] for node in model.graph.node if node.name} == {"a.pool", "b.unpool"}


def test_collapsing_undoes_expanding():
    model = expanded()
    collapse_window_calls(model)
    onnx.checker.check_model(model)
    assert list(model.graph.node) == list(calls().graph.node)
    assert sorted(map(str, model.opset_import)) == sorted(map(str, calls().opset_import))


def test_collapsing_looks_at_structure_only():
    """Other names, another order, weights in place of constant nodes: as an optimiser may leave a graph."""
    model = expanded()
    graph = model.graph
    renamed = {
        value: f"v{i}"
        for i, value in enumerate({o for node in graph.node for o in node.output} - {"pooled", "window", "unpooled"})
    }
    rest = []
    for node in graph.node:
        node.name = ""
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
        if node.op_type == "Constant" and node.attribute[0].name == "value_ints":
            array = np.array(node.attribute[0].ints, np.int64)
            graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
        else:
            rest.append(node)
    del graph.node[:]
    constants = [node for node in rest if node.op_type == "Constant"]
    graph.node.extend(constants + [node for node in rest if node.op_type != "Constant"])
    onnx.checker.check_model(model)
    collapse_window_calls(model)
    assert kinds(model) == kinds(calls())
    assert list(model.graph.node[0].output) == ["pooled", "window"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("MaxPool", lambda node: node.attribute.append(oh.make_attribute("ceil_mode", 1))),
        ("Slice", lambda node: node.input.__setitem__(0, "pooled")),
        ("Where", lambda node: node.input.__setitem__(1, node.input[2])),
        ("Constant", lambda node: node.attribute[0].ints.__setitem__(0, node.attribute[0].ints[0] + 1)),
    ],
)
def test_another_body_is_not_taken_for_ours(kind, change):
    model = expanded()
    change(next(node for node in model.graph.node if node.op_type == kind))
    collapse_window_calls(model)
    assert (DOMAIN, POOL) not in kinds(model)
    assert (DOMAIN, UNPOOL) in kinds(model)


def test_swapped_places_of_unpooling_are_not_taken_for_ours():
    model = expanded()
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    concat.input[:] = concat.input[::-1]
    collapse_window_calls(model)
    assert (DOMAIN, UNPOOL) not in kinds(model)


def test_values_that_others_read_stay():
    model = expanded()
    inner = next(node.output[0] for node in model.graph.node if node.op_type == "Equal")
    model.graph.node.append(oh.make_node("Not", [inner], ["odd"]))
    model.graph.output.append(oh.make_tensor_value_info("odd", onnx.TensorProto.BOOL, ["n", "c", "i", "j"]))
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(["odd"], {"x": np.ones((1, 1, 4, 4), np.float32)})
    collapse_window_calls(model)
    onnx.checker.check_model(model)
    assert (DOMAIN, POOL) in kinds(model)
    next(node for node in model.graph.node if node.op_type == POOL).name = "again"
    expand_window_calls(model)
    actual = onnxruntime.InferenceSession(model.SerializeToString()).run(["odd"], {"x": np.ones((1, 1, 4, 4), np.float32)})
    assert np.array_equal(actual, expected)
