"""Convolutions that leave the blocked layout, against PyTorch, in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu import planar
from enet_tvm.compiler.kernels.cpu.conv2d import column_reach
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout

ARM = VectorUnit(4, 32, "aarch64")
UNITS = st.sampled_from([VectorUnit(4, 16), VectorUnit(4, 32), ARM, VectorUnit(8, 16), VectorUnit(16, 32)])
KINDS = {
    "transposed 2x2": ((2, 2), 0, 1, True),
    "transposed 3x3": ((3, 3), 1, 1, True),
    "1x1": ((1, 1), 0, 1, False),
    "3x3": ((3, 3), 1, 1, False),
    "3x3 dilation 2": ((3, 3), 2, 2, False),
}


@pytest.fixture(scope="session")
def agrees(run_kernel, stored):
    def check(
        name: str,
        unit: VectorUnit,
        classes: int,
        data_shape: tuple[int, int, int, int],
        block: int,
        pad: int = 0,
        activation: str = "none",
        seed: int = 0,
    ) -> None:
        kernel, padding, dilation, transposed = KINDS[name]
        n, inputs, height, width = data_shape
        scale = 2 if transposed else 1
        attrs = FusedConv2D(
            data_shape=data_shape,
            out_shape=(n, classes, scale * height, scale * width),
            kernel=kernel,
            strides=(scale, scale),
            padding=(padding, padding),
            dilation=(dilation, dilation),
            transposed=transposed,
            activation=activation,
        )
        assert planar.PlanarTemplate.covers(attrs, unit)
        attrs = FusedConv2D(**{**attrs.__dict__, "data_layout": Layout(block, column_reach(attrs) + pad)})
        rng = np.random.default_rng(seed)
        data = rng.integers(-3, 4, data_shape).astype(np.float32)
        weight = rng.integers(-3, 4, (*((inputs, classes) if transposed else (classes, inputs)), *kernel)).astype(np.float32)
        bias, slope = (rng.integers(-3, 4, classes).astype(np.float32) for _ in range(2))
        x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
        expected = (
            F.conv_transpose2d(x, w, b, 2, padding, output_padding=kernel[0] % 2)
            if transposed
            else F.conv2d(x, w, b, 1, padding, dilation)
        )
        # ARM loads eight weights at once, of which some lie behind the last: they shall not matter.
        behind = ((0, 0), (0, 0), (0, 7 if unit == ARM else 0))
        packed = np.pad(planar.pack_planar_weight(weight, attrs), behind, constant_values=np.nan)
        arguments = [stored(data, attrs.data_layout), packed, bias]
        if activation == "relu":
            expected = F.relu(expected)
        elif activation == "prelu":
            expected = F.prelu(expected, torch.from_numpy(slope))
            arguments.append(slope)
        out = run_kernel(planar.planar_conv2d(attrs, unit), *arguments, shape=attrs.out_shape)
        assert np.array_equal(out, expected.numpy())

    return check


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_kernels_of_every_kind(agrees, name: str, data: st.DataObject):
    """Any number of classes, widths that no vector divides and widths smaller than one."""
    block = data.draw(st.sampled_from([1, 4, 16]), "block")
    agrees(
        name,
        data.draw(UNITS, "unit"),
        classes=data.draw(st.integers(1, 25), "classes"),
        data_shape=(
            data.draw(st.integers(1, 2), "pictures"),
            block * data.draw(st.integers(1, 2), "blocks"),
            data.draw(st.integers(1, 4), "height"),
            data.draw(st.integers(2, 37), "width"),
        ),
        block=block,
        pad=data.draw(st.integers(0, 2), "padding"),
        activation=data.draw(st.sampled_from(["none", "relu", "prelu"]), "activation"),
        seed=data.draw(st.integers(0, 2**32 - 1), "seed"),
    )


@pytest.mark.parametrize("width", [2, 3, 7, 15, 16, 17])
def test_widths_around_a_vector(agrees, width: int):
    agrees("transposed 2x2", VectorUnit(16, 32), 11, (1, 16, 2, width), 16)


@pytest.mark.parametrize("classes", [1, 2, 9, 10, 11, 19, 21])
def test_classes_around_what_the_registers_hold(agrees, classes: int):
    """Two columns of ten channels fill them; one more starts a second tile, which overlaps the first."""
    agrees("transposed 2x2", VectorUnit(16, 32), classes, (1, 4, 1, 16), 4)


@pytest.mark.parametrize(("classes", "activation"), [(11, "none"), (13, "prelu")])
def test_weights_multiplied_by_lane(agrees, classes: int, activation: str):
    """Twelve of two columns fill the registers of ARM; the last weights of a second tile are of the first one's too."""
    agrees("transposed 2x2", ARM, classes, (1, 4, 1, 17), 4, activation=activation)


def test_a_single_column_is_refused():
    attrs = FusedConv2D((1, 16, 4, 1), (1, 5, 4, 1), (1, 1), (1, 1), (0, 0), (1, 1))
    assert not planar.PlanarTemplate.covers(attrs, VectorUnit(8, 16))
