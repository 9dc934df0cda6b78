"""What a fused convolution says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.ops import FusedConv2D, Layout, fused_conv2d

PLAIN = FusedConv2D((1, 8, 6, 10), (1, 16, 6, 10), (3, 3), (1, 1), (1, 1), (1, 1))
EVERYTHING = FusedConv2D(
    data_shape=(2, 16, 5, 7),
    out_shape=(2, 32, 10, 14),
    kernel=(3, 2),
    strides=(2, 2),
    padding=(1, 0),
    dilation=(1, 1),
    transposed=True,
    activation="prelu",
    residual="unpool",
    residual_channels=32,
    layers=("a.conv", "a.act"),
    data_layout=Layout(16, 2),
    out_layout=Layout(8, 1),
    residual_layout=Layout(8),
)


@pytest.mark.parametrize("attrs", [PLAIN, EVERYTHING])
def test_attributes_survive_the_operator(relax_main, attrs: FusedConv2D):
    weight = constant(np.zeros((16, 8, 3, 3), "float32"))
    bias = constant(np.zeros(16, "float32"))
    call = fused_conv2d(attrs, relax.Var("x", relax.TensorType(attrs.data_shape, "float32")), weight, bias)
    assert FusedConv2D.from_call(call) == attrs
    mod = relax_main(lambda b, x: b.emit(fused_conv2d(attrs, x, weight, bias)), attrs.data_layout.physical(attrs.data_shape))
    result = mod["main"].body.blocks[0].bindings[0].var
    assert tuple(int(s) for s in result.ty.shape.values) == attrs.out_layout.physical(attrs.out_shape)


def test_operators_in_order():
    assert PLAIN.operators == ["conv2d", "bias_add"]
    assert EVERYTHING.operators == ["conv2d_transpose", "bias_add", "max_unpool2d", "add", "prelu"]


def test_multiply_adds():
    assert PLAIN.multiply_adds == 16 * 6 * 10 * 8 * 9
    assert EVERYTHING.multiply_adds == 2 * 16 * 5 * 7 * 32 * 6, "of a transposed one: each input value meets each weight once"
