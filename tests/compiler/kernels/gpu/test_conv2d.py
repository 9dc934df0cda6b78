"""The GPU's templates against PyTorch, threads one after the other: whole numbers, so that every result must be equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from convolutions import KINDS, Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, gpu_conv2d, pack_gpu_vector, pack_gpu_weight
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.kernels.gpu.transposed import (
    gpu_conv2d_transpose,
    gpu_conv2d_transpose_argmax,
    labelling_tiles,
    pack_transposed_weight,
)
from enet_tvm.compiler.ops import FusedConv2D

SMALL, LARGE = GpuUnit(1, 80), GpuUnit(132, 255)
"""A machine that one tile after another fills; and one with so many multiprocessors that threads share tiles."""


def attributes(kind: Kind, batch: int, inputs: int, outputs: int, size: tuple[int, int], **more: object) -> FusedConv2D:
    shape, out = (batch, inputs, *size), (batch, outputs, *kind.output(*size))
    return FusedConv2D(shape, out, kind.kernel, kind.strides, kind.padding, kind.dilation, kind.transposed, **more)


@pytest.fixture(scope="session")
def agrees(run_kernel):
    """Fails unless the kernel writes what PyTorch computes, for whole numbers drawn by `seed`."""

    def check(attrs: FusedConv2D, unit: GpuUnit, output_padding: int = 0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def whole(*shape: int) -> np.ndarray:
            return rng.integers(-3, 4, shape).astype(np.float32)

        n, channels, height, width = attrs.out_shape
        inputs = attrs.data_shape[1]
        data = whole(*attrs.data_shape)
        weight = whole(*((inputs, channels) if attrs.transposed else (channels, inputs)), *attrs.kernel)
        bias, inner_slope, slope = whole(channels), whole(channels) / 4, whole(channels) / 4
        x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
        if attrs.transposed:
            tile = convolution_tile(attrs, unit)
            kernel, packed = gpu_conv2d_transpose(attrs, tile), pack_transposed_weight(weight, attrs, tile)
            expected = F.conv_transpose2d(x, w, b, attrs.strides, attrs.padding, output_padding)
        else:
            tile = convolution_tile(attrs, unit)
            kernel, packed = gpu_conv2d(attrs, tile), pack_gpu_weight(weight, tile)
            expected = F.conv2d(x, w, b, attrs.strides, attrs.padding, attrs.dilation)
        assert tuple(expected.shape) == attrs.out_shape
        arguments = [data, packed, pack_gpu_vector(bias, tile)]
        if attrs.inner_activation == "prelu":
            arguments.append(pack_gpu_vector(inner_slope, tile))
        if attrs.activation == "prelu":
            arguments.append(pack_gpu_vector(slope, tile))
        expected = activated(expected, attrs.inner_activation, inner_slope)
        if attrs.residual == "unpool":
            # Pairwise different values: PyTorch's indices are then those of the only maximum.
            pooled = torch.from_numpy(rng.permutation(n * channels * height * width).astype(np.float32) % 64)
            maxima, places = F.max_pool2d(pooled.reshape(n, channels, height, width), 2, return_indices=True)
            expected = expected + F.max_unpool2d(maxima, places, 2, output_size=(height, width))
            window = (places // width % 2 * 2 + places % width % 2).numpy().astype(np.uint8)
            arguments += [maxima.numpy(), window]
        elif attrs.residual != "none":
            shortcut = whole(n, attrs.residual_channels, height, width)
            arguments.append(shortcut)
            expected[:, : attrs.residual_channels] += torch.from_numpy(shortcut)
        expected = activated(expected, attrs.activation, slope)
        np.testing.assert_array_equal(run_kernel(serial_threads(kernel), *arguments, shape=attrs.out_shape), expected.numpy())

    def activated(value: torch.Tensor, activation: str, slope: np.ndarray) -> torch.Tensor:
        if activation == "relu":
            return torch.relu(value)
        return F.prelu(value, torch.from_numpy(slope)) if activation == "prelu" else value

    return check


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["one thread a tile", "shared tiles"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(agrees, name: str, unit: GpuUnit):
    kind = KINDS[name]
    agrees(attributes(kind, 1, 8, 24, (10, 14), activation="prelu"), unit, kind.output_padding)


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(("residual", "channels"), [("add", 16), ("pad", 8), ("pad", 3), ("unpool", 16)])
@pytest.mark.parametrize("activations", [("none", "relu"), ("prelu", "prelu"), ("relu", "none")])
def test_every_shortcut(agrees, residual: str, channels: int, activations: tuple[str, str]):
    inner, activation = activations
    agrees(
        attributes(
            KINDS["1x1"],
            2,
            4,
            16,
            (6, 10),
            residual=residual,
            residual_channels=channels,
            inner_activation=inner,
            activation=activation,
        ),
        SMALL,
    )


@settings(deadline=None, max_examples=12)
@given(
    name=st.sampled_from(sorted(KINDS)),
    batch=st.integers(1, 2),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 20),
    height=st.integers(4, 12),
    width=st.integers(4, 40),
    unit=st.sampled_from([SMALL, LARGE]),
    activation=st.sampled_from(["none", "relu", "prelu"]),
    seed=st.integers(0, 9),
)
def test_any_shape(agrees, name, batch, inputs, outputs, height, width, unit, activation, seed):
    """Channels and pixels that no tile divides, and pictures that a kernel hardly fits into."""
    kind = KINDS[name]
    agrees(attributes(kind, batch, inputs, outputs, (height, width), activation=activation), unit, kind.output_padding, seed)


@pytest.mark.parametrize("name", ["1x1", "3x3", "transposed 3x3"])
def test_the_large_machine_is_one_whose_threads_share_tiles(name: str):
    kind = KINDS[name]
    tile = convolution_tile(attributes(kind, 1, 8, 24, (10, 14), activation="prelu"), LARGE)
    assert tile.splits > 1


def test_transposed_ones_do_no_work_on_inserted_zeros():
    """Each weight is multiplied once for each input pixel, where the textbook form does so four times."""
    attrs = attributes(KINDS["transposed 3x3"], 1, 4, 8, (8, 8))
    tile = convolution_tile(attrs, SMALL)
    weight = pack_transposed_weight(np.ones((4, 8, 3, 3), np.float32), attrs, tile)
    assert weight.sum() == 4 * 8 * 9
    assert weight.shape == (8 // tile.channels, 9, 4, tile.channels)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("place", [0, *(pytest.param(other, marks=pytest.mark.slow) for other in (1, 2))])
@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].transposed])
@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["large tiles", "small tiles"])
@pytest.mark.parametrize(("outputs", "size", "activation"), [(11, (5, 9), "none"), (3, (4, 30), "prelu"), (20, (6, 9), "relu")])
def test_labels_are_pytorchs(
    run_kernel, name: str, unit: GpuUnit, place: int, outputs: int, size: tuple[int, int], activation: str
):
    """By each of the first tiles.

    Of whole numbers many are equal, and after a ReLU most: the first of them wins, as `torch.argmax` has it.
    """
    kind, rng = KINDS[name], np.random.default_rng(outputs)
    attrs = attributes(kind, 2, 4, outputs, size, activation=activation, argmax=True)
    data = rng.integers(-2, 3, attrs.data_shape).astype(np.float32)
    weight = rng.integers(-1, 2, (4, outputs, *kind.kernel)).astype(np.float32)
    bias, slope = rng.integers(-9, 3, outputs).astype(np.float32), rng.integers(-2, 3, outputs).astype(np.float32) / 4
    values = F.conv_transpose2d(
        *(torch.from_numpy(a) for a in (data, weight, bias)), kind.strides, kind.padding, kind.output_padding
    )
    values = torch.relu(values) if activation == "relu" else values
    values = F.prelu(values, torch.from_numpy(slope)) if activation == "prelu" else values
    largest = values.max(1, keepdim=True).values
    assert ((values == largest).sum(1) > 1).any()
    expected = values.argmax(1).numpy().astype(np.uint8)
    tile = labelling_tiles(attrs, unit)[place]
    vectors = [pack_gpu_vector(bias, tile), *([pack_gpu_vector(slope, tile)] if activation == "prelu" else [])]
    packed = pack_transposed_weight(weight, attrs, tile)
    kernel = serial_threads(gpu_conv2d_transpose_argmax(attrs, tile))
    labels = run_kernel(kernel, data, packed, *vectors, shape=expected.shape, dtype="uint8")
    np.testing.assert_array_equal(labels, expected)


def test_each_template_knows_its_own():
    plain, transposed = (attributes(KINDS[name], 1, 4, 8, (8, 8)) for name in ("3x3", "transposed 3x3"))
    with pytest.raises(ValueError, match="template of its own"):
        gpu_conv2d(transposed, convolution_tile(transposed, SMALL))
    labelling = attributes(KINDS["transposed 3x3"], 1, 4, 8, (8, 8), argmax=True)
    with pytest.raises(ValueError, match="ends in labels has a template of its own"):
        gpu_conv2d_transpose(labelling, convolution_tile(transposed, SMALL))
    with pytest.raises(ValueError, match="that double"):
        gpu_conv2d_transpose(plain, convolution_tile(plain, SMALL))
