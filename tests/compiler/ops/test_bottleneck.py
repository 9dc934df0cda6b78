"""What a fused bottleneck says of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bottlenecks import BottleneckCall, bottleneck
from tvm import relax

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.ops import FusedBottleneck, fused_bottleneck, fused_conv2d, spec_of

WHOLE = bottleneck((8, 16, 4), (6, 10), dilation=2)
DOWN = bottleneck((8, 16, 4), (6, 10), cells=True, pooled=True, kept=False)
UP = bottleneck((8, 16, 4), (6, 10), beside=8, kept=False)
DOUBLED = bottleneck((8, 16, 4), (6, 10), doubling=3, residual="unpool")
LABELS = bottleneck((8, 16, 11), (6, 10), head=True, argmax=True, kept=False)
SHORT = bottleneck((8, 16, 0), (6, 10), residual="none", activation="relu")


def call_of(spec: FusedBottleneck) -> relax.Call:
    """Return a call made of those of its convolutions."""
    x = relax.Var("x", relax.TensorType(spec.data_shape, "float32"))
    calls = []
    for part in spec.convolutions:
        weight, bias, *more = [constant(np.zeros(1, "float32")) for _ in range(part.argument_count - 1)]
        slopes = [more.pop(0) for kind in (part.inner_activation, part.activation) if kind == "prelu"]
        inner, outer = slopes if len(slopes) == 2 else (None, slopes[0] if slopes else None)
        calls.append(fused_conv2d(part, x, weight, bias, outer, *more, inner_slope=inner))
    return fused_bottleneck(spec, calls)


def test_attributes_survive_the_operator():
    for spec in (WHOLE, SHORT, DOWN, UP, DOUBLED, LABELS, replace(WHOLE, conv=None)):
        call = call_of(spec)
        assert spec_of(call) == FusedBottleneck.from_call(call) == spec


def test_results():
    """The narrow one is the first, as it is computed last."""
    pair = relax.BlockBuilder().normalize(call_of(WHOLE)).ty
    assert [tuple(int(n) for n in kind.shape.values) for kind in pair.fields] == [(1, 4, 6, 10), (1, 16, 6, 10)]
    assert WHOLE.out_shape == (1, 4, 6, 10)
    down = relax.BlockBuilder().normalize(call_of(DOWN)).ty
    assert [(tuple(int(n) for n in kind.shape.values), str(kind.dtype)) for kind in down.fields] == [
        ((1, 4, 3, 5), "float32"),
        ((1, 16, 3, 5), "float32"),
        ((1, 16, 3, 5), "uint8"),
    ]
    assert list(DOWN.outputs) == ["reduced", "pooled", "window"]
    up = relax.BlockBuilder().normalize(call_of(UP)).ty
    assert [tuple(int(n) for n in kind.shape.values) for kind in up.fields] == [(1, 4, 6, 10), (1, 8, 6, 10)]
    assert list(UP.outputs) == ["reduced", "beside_out"]
    alone = relax.BlockBuilder().normalize(call_of(SHORT)).ty
    assert tuple(int(n) for n in alone.shape.values) == SHORT.out_shape == (1, 16, 6, 10)


def test_arguments_of_each_convolution():
    call = BottleneckCall(WHOLE)
    parts = list(WHOLE.split([constant(array) for array in call.arguments]))
    assert [len(arguments) for arguments in parts] == [part.argument_count for part in WHOLE.convolutions] == [4, 6, 4]
    assert sum(len(arguments) - 1 for arguments in parts) == len(call.arguments) - 1


def test_what_it_computes():
    assert WHOLE.operators == [
        *("conv2d", "bias_add", "prelu"),
        *("conv2d", "bias_add", "prelu", "add", "prelu"),
        *("conv2d", "bias_add", "prelu"),
    ]
    assert WHOLE.multiply_adds == 60 * (8 * 8 * 9 + 8 * 16 + 16 * 4)
    assert WHOLE.kernel_name == "bottleneck_3x3_d2_1x1_1x1_8to8to16to4_10x6_add"
    assert DOWN.operators.index("max_pool2d_with_window") == 8
    assert DOWN.multiply_adds == 60 * (8 * 8 * 9 + 8 * 16 + 16 * 4)
    assert DOWN.kernel_name == "bottleneck_3x3_1x1_2x2_s2_8to8to16to4_5x3_add_pool_alone"
    assert UP.multiply_adds == 60 * (8 * 8 * 9 + 8 * 16 + 16 * 8 + 16 * 4)
    assert UP.kernel_name == "bottleneck_3x3_1x1_1x1_8to8to16to4_10x6_add_beside8_alone"
    assert DOUBLED.multiply_adds == 15 * 8 * 8 * 9 + 60 * (8 * 16 + 16 * 4)
    assert DOUBLED.data_shape == (1, 8, 3, 5)
    assert DOUBLED.kernel_name == "bottleneck_transpose_3x3_1x1_1x1_8to8to16to4_10x6_unpool"
    assert [spec.in_cells for spec in (WHOLE, DOWN, UP, DOUBLED, LABELS)] == [False, True, False, True, False]
    assert LABELS.multiply_adds == 60 * (8 * 8 * 9 + 8 * 16 + 16 * 11 * 4)
    assert LABELS.outputs == {"reduced": ((1, 12, 20), "uint8")}
    assert LABELS.operators[-3:] == ["conv2d_transpose", "bias_add", "argmax"]
    assert LABELS.kernel_name == "bottleneck_3x3_1x1_transpose_2x2_8to8to16to11_20x12_add_argmax_alone"
    assert SHORT.kernel_name == "bottleneck_3x3_1x1_8to8to16_10x6"


def test_layers_are_no_part_of_a_kernel():
    assert WHOLE.conv is not None
    named = replace(WHOLE, conv=replace(WHOLE.conv, layers=("a", "b")), expand=replace(WHOLE.expand, layers=("b", "c")))
    assert named.layers == ("a", "b", "c")
    assert named.without_layers() == WHOLE
