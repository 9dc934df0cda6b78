"""No leftover function stays a bare loop, and each still computes what it did."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, topi
from tvm.script import tirx as T

from enet_tvm.compiler.passes.schedule_remaining import SCHEDULED, ScheduleRemaining, schedule_for_cpu

LANES = 16
FEW = settings(max_examples=15, deadline=None)
SHAPES = st.tuples(*[st.integers(1, 20)] * 4)


def loops(statement: Any) -> list[tuple[Any, list[Any]]]:
    """Return the outermost loops of a statement, each with all loops in it."""
    found: list[tuple[Any, list[Any]]] = []

    depth: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, tvm.tirx.For):
            if depth:
                found[-1][1].append(node)
            else:
                found.append((node, [node]))
            depth.append(node)
            walk(node.body)
            depth.pop()
            return
        for name in ("body", "init", "then_case", "else_case", "block"):
            child = getattr(node, name, None)
            if child is not None:
                walk(child)
        for child in getattr(node, "seq", ()):
            walk(child)

    walk(statement)
    return found


def check(function: tvm.tirx.PrimFunc) -> list[bool]:
    """Fail if a loop of more than a few thousand steps is not parallel; say for each whether it holds vectors."""
    kind = tvm.tirx.ForKind
    vectors = []
    for outer, inside in loops(function.body):
        if math.prod(int(loop.extent) for loop in inside) > 1024:
            assert outer.kind == kind.PARALLEL
        vectors.append(any(loop.kind == kind.VECTORIZED for loop in inside))
    return vectors


@pytest.fixture(scope="session")
def scheduled(relax_main) -> Callable[..., list[tvm.tirx.PrimFunc]]:
    """Makes ``scheduled(body, *shapes)`` the functions of a module that has been through the pass."""

    def run(body: Callable[..., Any], *shapes: tuple[int, ...]) -> list[tvm.tirx.PrimFunc]:
        mod = ScheduleRemaining(LANES)(relax.transform.LegalizeOps()(relax_main(body, *shapes)))
        return [f for _, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]

    return run


OPERATORS: dict[str, Callable[..., Any]] = {
    "relu": relax.op.nn.relu,
    "softmax": lambda x: relax.op.nn.softmax(x, axis=1),
    "sum of channels": lambda x: relax.op.sum(x, axis=1),
    "sum of columns": lambda x: relax.op.sum(x, axis=3),
    "sum of all": relax.op.sum,
    "mean of all": relax.op.mean,
    "argmax": lambda x: relax.op.argmax(x, axis=1),
    "pooling": lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1)),
    "padding": lambda x: relax.op.nn.pad(x, (0, 0, 0, 0, 1, 1, 8, 8)),
    "concatenation": lambda x: relax.op.concat([x, x], axis=1),
    "resizing": lambda x: relax.op.image.resize2d(x, relax.ShapeExpr((48, 96)), layout="NCHW"),
    "normalisation": lambda x: relax.op.nn.group_norm(
        x, relax.const(np.ones(8, "float32")), relax.const(np.ones(8, "float32")), 4, 1, axes=[2, 3]
    ),
    "convolution": lambda x: relax.op.nn.conv2d(
        x, relax.const(np.ones((16, 2, 3, 3), "float32")), padding=1, groups=4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_everything_is_parallel_and_vectorised(scheduled, name: str):
    functions = scheduled(lambda b, x: b.emit(OPERATORS[name](x)), (2, 8, 24, 48))
    assert functions
    for function in functions:
        assert function.attrs[SCHEDULED]
        assert any(check(function)), "nothing is vectorised"


@pytest.mark.parametrize("width", [47, 20])
def test_rows_that_no_vector_divides(scheduled, width: int):
    """Rows are shared out, and left whole for LLVM to make vectors of."""
    (function,) = scheduled(lambda b, x: b.emit(relax.op.nn.relu(x)), (2, 8, 24, width))
    ((outer, inside),) = loops(function.body)
    assert outer.kind == tvm.tirx.ForKind.PARALLEL
    assert [int(loop.extent) for loop in inside] == [2 * 8 * 24, width]


def test_half_a_vector_for_a_width_that_no_whole_one_divides(scheduled):
    (function,) = scheduled(lambda b, x: b.emit(relax.op.nn.relu(x)), (1, 1, 24, 24))
    ((_, inside),) = loops(function.body)
    assert [int(loop.extent) for loop in inside if loop.kind == tvm.tirx.ForKind.VECTORIZED] == [8]


def test_channels_last_of_one_channel(scheduled):
    """The last axis has nothing to offer to a vector, the one before has."""
    (function,) = scheduled(lambda b, x: b.emit(relax.op.nn.relu(x)), (1, 24, 48, 1))
    ((outer, inside),) = loops(function.body)
    assert outer.kind == tvm.tirx.ForKind.PARALLEL
    assert any(loop.kind == tvm.tirx.ForKind.VECTORIZED for loop in inside)


def test_what_is_scheduled_is_left_alone(relax_main):
    mod = relax.transform.LegalizeOps()(relax_main(lambda b, x: b.emit(relax.op.nn.relu(x)), (2, 8, 24, 48)))
    once = ScheduleRemaining(LANES)(mod)
    assert tvm_ffi.structural_equal(ScheduleRemaining(LANES)(once), once)
    assert not tvm_ffi.structural_equal(once, mod)


def test_hand_written_loops_keep_their_order():
    """Each step needs the one before: neither a block without axes nor loops without a block may become parallel."""

    @T.prim_func(private=True, s_tir=True)
    def in_block(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(63):
            with T.sblock("step"):
                at = T.axis.opaque(63, i)
                y[at + 1] = y[at] + x[at]

    @T.prim_func(private=True, s_tir=True)
    def bare(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(63):
            y[i + 1] = y[i] + x[i]

    @T.prim_func(private=True, s_tir=True)
    def without_axes(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(63):
            with T.sblock("step"):
                T.reads(y[i], x[i])
                T.writes(y[i + 1])
                y[i + 1] = y[i] + x[i]

    for function in (in_block, bare, without_axes):
        result = schedule_for_cpu(function, LANES)
        assert result.attrs[SCHEDULED]
        ((outer, _),) = loops(result.body)
        assert outer.kind == tvm.tirx.ForKind.SERIAL


@FEW
@given(
    shape=SHAPES,
    axes=st.sets(st.integers(0, 3), max_size=4),
    operator=st.sampled_from(["sum", "max", "mean", "prod"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_reductions_are_right(relax_main, run_relax, shape: tuple[int, ...], axes: set[int], operator: str, seed: int):
    """Over any axes: none, some, all."""
    x = np.random.default_rng(seed).integers(-1, 3, shape).astype(np.float32)
    if operator == "prod":
        x = np.sign(x) + (x == 0)
    chosen = sorted(axes) or None
    mod = relax_main(lambda b, data: b.emit(getattr(relax.op, operator)(data, axis=chosen)), shape)
    expected = getattr(x.astype(np.float64), operator)(axis=None if chosen is None else tuple(chosen))
    np.testing.assert_allclose(run_relax(mod, x), expected, rtol=1e-6)


@pytest.mark.slow
@FEW
@given(shape=SHAPES, axis=st.one_of(st.none(), st.integers(0, 3)), seed=st.integers(0, 2**32 - 1))
def test_the_first_of_equal_maxima_is_found(relax_main, run_relax, shape: tuple[int, ...], axis: int | None, seed: int):
    """Also when parts of the tensor are searched in parallel."""
    x = np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32)
    mod = relax_main(lambda b, data: b.emit(relax.op.argmax(data, axis=axis)), shape)
    assert np.array_equal(run_relax(mod, x), x.argmax(axis=axis))


@pytest.mark.slow
@FEW
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_several_blocks_in_one_function(relax_main, run_relax, shape: tuple[int, ...], seed: int):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    mod = relax_main(lambda b, data: b.emit(relax.op.nn.softmax(relax.op.nn.relu(data), axis=3)), shape)
    powers = np.exp(np.maximum(x, 0).astype(np.float64))
    np.testing.assert_allclose(run_relax(mod, x), powers / powers.sum(3, keepdims=True), rtol=1e-5)


def test_topis_own_loops(relax_main, run_relax):
    """A scatter is written with loops of its own, which the pass cannot read and must not stop at."""
    rng = np.random.default_rng(0)
    x, updates = rng.standard_normal((2, 5, 7)).astype(np.float32), rng.standard_normal((2, 5, 7)).astype(np.float32)
    places = np.argsort(rng.standard_normal((2, 5, 7)), axis=1)
    mod = relax_main(
        lambda b, data, at, new: b.emit(relax.op.scatter_elements(data, at, new, axis=1)),
        *[(2, 5, 7)] * 3, dtypes=("float32", "int64", "float32"),
    )  # fmt: skip
    expected = x.copy()
    np.put_along_axis(expected, places, updates, axis=1)
    assert np.array_equal(run_relax(mod, x, places, updates), expected)


def test_unknown_extents():
    """A function of a size that is only known when it runs is still parallel."""
    n = tvm.tirx.Var("n", "int64")
    x = tvm.te.placeholder((n, n), "float32")
    result = schedule_for_cpu(tvm.te.create_prim_func([x, topi.nn.relu(x)]), LANES)
    ((outer, _),) = loops(result.body)
    assert outer.kind == tvm.tirx.ForKind.PARALLEL
