from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, constant, constant_value, is_call, is_result, layer_of, variables


@pytest.fixture
def diamond(relax_main) -> tvm.IRModule:
    """Two operators read the first one's result, and a third is never read."""

    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Var:
        top = b.emit(relax.op.nn.relu(x), name_hint="top")
        left = b.emit(relax.op.negative(top), name_hint="left")
        right = b.emit(relax.op.exp(top), name_hint="right")
        b.emit(relax.op.sqrt(right), name_hint="unread")
        return b.emit(relax.op.add(left, right), name_hint="bottom")

    return relax_main(body, (2, 3))


def by_name(graph: Dataflow) -> dict[str, relax.Var]:
    return {str(binding.var.name): binding.var for binding in graph.bindings}


def names(mod: tvm.IRModule) -> list[str]:
    return [str(binding.var.name) for binding in Dataflow(mod).bindings]


def test_who_makes_and_who_reads(diamond: tvm.IRModule):
    graph = Dataflow(diamond)
    var = by_name(graph)
    assert list(var)[:5] == ["top", "left", "right", "unread", "bottom"]
    assert is_call(graph.value(var["top"]), "relax.nn.relu")
    assert graph.value(graph.function.params[0]) is None
    assert {u.name for u in graph.users[var["top"]]} == {"left", "right"}
    assert graph.only_user(var["top"]) is None
    assert graph.only_user(var["left"]).same_as(var["bottom"])
    assert graph.only_user(var["unread"]) is None
    assert [v.name for v in graph.reads(graph.bindings[4])] == ["left", "right"]


def test_what_is_returned_has_no_only_user(relax_main):
    """A value that main returns beside another that is made of it must stay."""

    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        first = b.emit(relax.op.nn.relu(x), name_hint="first")
        return relax.Tuple([first, b.emit(relax.op.exp(first), name_hint="second")])

    graph = Dataflow(relax_main(body, (2, 3)))
    var = by_name(graph)
    assert graph.only_user(var["first"]) is None
    result = graph.bindings[-1].var
    assert is_result(graph, result)
    assert not is_result(graph, var["second"])


def test_a_result_that_one_operator_reads_has_no_only_user():
    """Two results, the second made of the first: both are returned by name, without a variable for the pair."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            first = builder.emit_output(relax.op.nn.relu(x))
            second = builder.emit_output(relax.op.exp(first))
        builder.emit_func_output(relax.Tuple([first, second]))
    graph = Dataflow(builder.get())
    made = [binding.var for binding in graph.bindings]
    assert len(graph.users[made[0]]) == 1
    assert is_result(graph, made[0])
    assert graph.only_user(made[0]) is None


def test_a_value_read_twice_by_one_operator_has_no_only_user(relax_main):
    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Var:
        y = b.emit(relax.op.nn.relu(x), name_hint="y")
        return b.emit(relax.op.multiply(y, y))

    graph = Dataflow(relax_main(body, (2, 3)))
    assert graph.only_user(by_name(graph)["y"]) is None


def test_keeping_everything_changes_nothing_but_drops_what_is_unread(diamond: tvm.IRModule, run_relax):
    graph, rewriter = Dataflow(diamond), Rewriter()
    for binding in graph.bindings:
        rewriter.keep(binding)
    rebuilt = graph.rebuilt(rewriter)
    assert names(rebuilt) == [name for name in names(diamond) if name != "unread"]
    relax.analysis.well_formed(rebuilt, check_ty=False)
    x = np.array([[-1, 0, 1], [2, 3, -4]], np.float32)
    positive = np.maximum(x, 0)
    np.testing.assert_allclose(run_relax(rebuilt, x), np.exp(positive) - positive, rtol=1e-6)


def test_replacing(diamond: tvm.IRModule, run_relax):
    """Later readers see the new value, earlier bindings and the given name stay."""
    graph, rewriter = Dataflow(diamond), Rewriter()
    for binding in graph.bindings:
        if binding.var.name == "left":
            new = rewriter.emit(relax.op.nn.relu(rewriter.mapped(binding.value.args[0])), binding.var, "other")
            rewriter.replace(binding.var, new)
        else:
            rewriter.keep(binding)
    rebuilt = graph.rebuilt(rewriter)
    assert "other" in names(rebuilt)
    assert "left" not in names(rebuilt)
    x = np.array([[-1, 0, 1], [2, 3, -4]], np.float32)
    positive = np.maximum(x, 0)
    np.testing.assert_allclose(run_relax(rebuilt, x), np.exp(positive) + positive, rtol=1e-6)


def test_another_result(diamond: tvm.IRModule):
    graph, rewriter = Dataflow(diamond), Rewriter()
    for binding in graph.bindings:
        rewriter.keep(binding)
    right = next(binding for binding in graph.bindings if binding.var.name == "right")
    output = rewriter.emit(rewriter.mapped(right.value), graph.bindings[-1].var, "again")
    assert names(graph.rebuilt(rewriter, output)) == ["top", "again"]


def test_equal_kernels_are_one_and_names_unique():
    from tvm.script import tirx as T

    def kernel(factor: float) -> tvm.tirx.PrimFunc:
        @T.prim_func(private=True, s_tir=True)
        def scale(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
            for i in range(4):
                with T.sblock("y"):
                    vi = T.axis.spatial(4, i)
                    y[vi] = x[vi] * T.float32(factor)

        return scale

    rewriter = Rewriter()
    first, same, other = (rewriter.add_kernel(kernel(f), "scale") for f in (2.0, 2.0, 3.0))
    assert first.same_as(same)
    assert first.name_hint != other.name_hint
    assert len(rewriter.kernels.functions_items()) == 2


def test_two_blocks_are_refused():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.relu(x))
        z = builder.emit(relax.op.nn.relu(y))
        builder.emit_func_output(z)
    with pytest.raises(ValueError, match="one dataflow block"):
        Dataflow(builder.get())


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_constants(dtype: str):
    value = np.arange(6, dtype=dtype).reshape(2, 3).T  # not contiguous
    made = constant(value)
    assert str(made.ty.dtype) == dtype
    assert np.array_equal(constant_value(made), value)
    assert constant_value(relax.Var("x", relax.TensorType((2,), "float32"))) is None


def test_variables_of_nested_expressions():
    x, y = (relax.Var(name, relax.TensorType((2,), "float32")) for name in "xy")
    pair = relax.Tuple([x, relax.op.add(y, x)])
    assert [v.name for v in variables(relax.TupleGetItem(pair, 0))] == ["x", "y", "x"]


@pytest.mark.parametrize(("name", "layer"), [("encoder.conv", "encoder.conv"), ("conv#2", "conv"), ("conv#2#packed", "conv")])
def test_layer_names(name: str, layer: str):
    assert layer_of(relax.Var(name, relax.TensorType((2,), "float32"))) == layer
