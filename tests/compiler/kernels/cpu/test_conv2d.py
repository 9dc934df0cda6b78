"""The register-tile template against PyTorch: whole numbers, so that every result must be equal to the last bit."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import tvm
from arm_kernels import check_on_arm, short_convolution
from convolutions import KINDS, Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu import conv2d
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile, VectorUnit, neighbour_tiles
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.targets import load_target
from enet_tvm.tuning.tasks import alone

UNITS = {4: VectorUnit(4, 16), 8: VectorUnit(8, 16), 16: VectorUnit(16, 32)}
NEON = VectorUnit(4, 32)
ARM = VectorUnit(4, 32, "aarch64")
"""Multiplies by lane, starts with the bias and has no masks; tensors are as with `NEON`."""
ARM_INT8 = VectorUnit(8, 16, "aarch64")
LANES = st.sampled_from([4, 8, 16])


@pytest.fixture(scope="session")
def agrees(run_kernel, stored, loaded):
    """Fails unless the kernel writes what PyTorch computes, for whole numbers drawn by `seed`."""

    def check(attrs: FusedConv2D, unit: VectorUnit, output_padding: int = 0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def whole(*shape: int) -> np.ndarray:
            return rng.integers(-3, 4, shape).astype(np.float32)

        channels, inputs = attrs.out_shape[1], attrs.data_shape[1]
        data = whole(*attrs.data_shape)
        weight = whole(*((inputs, channels) if attrs.transposed else (channels, inputs)), *attrs.kernel)
        bias, slope = whole(channels), whole(channels) / 4
        tile = conv2d.tile_of(attrs, unit)
        arguments = [stored(data, attrs.data_layout), conv2d.pack_weight(weight, attrs, tile), bias]
        x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
        if attrs.transposed:
            expected = F.conv_transpose2d(x, w, b, attrs.strides, attrs.padding, output_padding)
        else:
            expected = F.conv2d(x, w, b, attrs.strides, attrs.padding, attrs.dilation)
        assert tuple(expected.shape) == attrs.out_shape
        if attrs.activation == "prelu":
            arguments.append(slope)
        if attrs.residual != "none":
            shortcut, tensors = residual(attrs, rng, stored)
            expected = expected + torch.from_numpy(shortcut)
            arguments += tensors
        if attrs.activation == "relu":
            expected = F.relu(expected)
        elif attrs.activation == "prelu":
            expected = F.prelu(expected, torch.from_numpy(slope))
        out = run_kernel(conv2d.conv2d(attrs, tile, unit.isa), *arguments, shape=attrs.out_layout.physical(attrs.out_shape))
        assert np.array_equal(loaded(out, attrs.out_layout), expected.numpy())

    return check


def residual(attrs: FusedConv2D, rng: np.random.Generator, stored) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return what is added, of the output's shape, and the kernel's arguments for it.

    There is NaN in the shortcut's padding: nothing of that may be added.
    """
    n, channels, height, width = attrs.out_shape
    if attrs.residual == "unpool":
        height, width = height // 2, width // 2
    x = rng.integers(-3, 4, (n, attrs.residual_channels, height, width)).astype(np.float32)
    arguments = [stored(x, attrs.residual_layout, edge=np.nan)]
    if attrs.residual == "add":
        return x, arguments
    if attrs.residual == "pad":
        return np.pad(x, ((0, 0), (0, channels - x.shape[1]), (0, 0), (0, 0))), arguments
    window = rng.integers(0, 4, x.shape).astype(np.uint8)
    unpooled = np.zeros(attrs.out_shape, np.float32)
    for place in range(4):
        unpooled[:, :, place // 2 :: 2, place % 2 :: 2] = np.where(window == place, x, 0)
    return unpooled, [*arguments, stored(window, Layout(attrs.residual_layout.block))]


def attributes(
    kind: Kind,
    n: int,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    height: int,
    width: int,
    pads: tuple[int, int],
    **more: object,
) -> FusedConv2D:
    """Return a convolution's attributes; channels come as (blocks, block), `pads` are columns beside those needed."""
    attrs = FusedConv2D(
        data_shape=(n, inputs[0] * inputs[1], height, width),
        out_shape=(n, outputs[0] * outputs[1], *kind.output(height, width)),
        kernel=kind.kernel,
        strides=kind.strides,
        padding=kind.padding,
        dilation=kind.dilation,
        transposed=kind.transposed,
        out_layout=Layout(outputs[1], pads[1]),
        **more,
    )
    reach = conv2d.column_reach(attrs)
    return FusedConv2D(**{**attrs.__dict__, "data_layout": Layout(inputs[1], reach + pads[0])})


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_kernels_of_every_kind(agrees, name: str, data: st.DataObject):
    """On any vector unit, for widths that no tile divides and widths smaller than one, with any padding in memory."""
    kind, lanes = KINDS[name], data.draw(LANES, "lanes")
    smallest = 1 if kind.transposed or any(kind.padding) else max(kind.kernel)
    attrs = attributes(
        kind,
        n=data.draw(st.integers(1, 2), "pictures"),
        inputs=(data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 4, lanes]), "input block")),
        outputs=(data.draw(st.integers(1, 3), "output blocks"), lanes),
        height=data.draw(st.integers(max(smallest, 2), 6), "height"),
        width=data.draw(st.integers(max(smallest, 2), 29), "width"),
        pads=(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))),
    )
    unit = ARM if lanes == 4 and data.draw(st.booleans(), "multiplied by lane") else UNITS[lanes]
    agrees(attrs, unit, kind.output_padding, data.draw(st.integers(0, 2**32 - 1), "seed"))


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("kind", ["none", "add", "pad", "unpool"])
@pytest.mark.parametrize("activation", ["none", "relu", "prelu"])
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_shortcuts_and_activations(agrees, kind: str, activation: str, data: st.DataObject):
    lanes = data.draw(LANES, "lanes")
    blocks = data.draw(st.integers(2, 4), "output blocks")
    even = 2 if kind == "unpool" else 1
    channels = {"none": 0, "pad": lanes * data.draw(st.integers(1, blocks - 1), "known blocks")}.get(kind, lanes * blocks)
    attrs = attributes(
        Kind((1, 1)),
        n=data.draw(st.integers(1, 2), "pictures"),
        inputs=(1, lanes),
        outputs=(blocks, lanes),
        height=even * data.draw(st.integers(1, 3), "height"),
        width=even * data.draw(st.integers(1, 15), "width"),
        pads=(0, data.draw(st.integers(0, 2))),
        activation=activation,
        residual=kind,
        residual_channels=channels,
        residual_layout=Layout(lanes, data.draw(st.integers(0, 2), "padding of the shortcut")),
    )
    unit = ARM if lanes == 4 and data.draw(st.booleans(), "multiplied by lane") else UNITS[lanes]
    agrees(attrs, unit, seed=data.draw(st.integers(0, 2**32 - 1), "seed"))


@pytest.mark.parametrize("kind", ["add", "pad", "unpool"])
def test_multiplied_by_lane(agrees, kind: str):
    """Sums that begin with the bias, shortcuts, and PReLU without masks, whichever the examples above are."""
    more = {"residual": kind, "residual_channels": 4 if kind == "pad" else 12, "residual_layout": Layout(4, 1)}
    attrs = attributes(Kind((1, 1)), 1, (2, 4), (3, 4), 4, 18, (0, 1), activation="prelu", **more)
    agrees(attrs, ARM)


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("kind", ["1x1", "3x3", "5x1", "1x5"])
@pytest.mark.emulated
@pytest.mark.slow
def test_words_of_neighbours(emulated_kernels, tmp_path, kind: str, block: int):
    """Bytes in blocks of one and two words, without matrix instructions: the last tile of a row is moved left; shortcuts."""
    more = {"residual": "add", "residual_channels": 16, "residual_layout": Layout(block, 1, "int8")} if kind == "1x1" else {}
    attrs = short_convolution("int8", block, kind, activation="prelu", **more)
    assert conv2d.by_neighbour(attrs, ARM_INT8.isa)
    for tile in (None, RegisterTile(4, 1), RegisterTile(8, 2)):
        check_on_arm(emulated_kernels, attrs, ARM_INT8, tmp_path, tile)


@pytest.mark.parametrize("kind", ["2x2 stride 2", "transposed 3x3", "transposed 2x2"])
@pytest.mark.emulated
@pytest.mark.slow
def test_bytes_that_are_no_neighbours(emulated_kernels, tmp_path, kind: str):
    """Vectors of two registers."""
    attrs = short_convolution("int8", 8, kind)
    assert not conv2d.by_neighbour(attrs, ARM_INT8.isa)
    check_on_arm(emulated_kernels, attrs, ARM_INT8, tmp_path)


@pytest.mark.parametrize("block", [4, 8])
def test_instructions_of_neighbours(block: int):
    """Each word is multiplied from its lane; none is copied to all of them."""
    template = conv2d.Conv2DTemplate(short_convolution("int8", block, inputs=64, outputs=32), ARM_INT8)
    module = alone(template.kernel(template.default))
    compiled = tvm.compile(module, load_target("rpi5").to_tvm())
    products = [line for line in compiled.mod.inspect_source("asm").splitlines() if line.strip().startswith("sdot")]
    tile = template.default
    assert tile.pixels % 4 == 0
    assert len(products) % (tile.pixels * tile.blocks * (block // 4) ** 2) == 0
    assert all(re.search(r"4b\[[0-3]\]$", line) for line in products)


def test_neighbours_are_loaded_and_stored_by_twos():
    """The shortcut and the output of a tile are addressed from one register each, as targets ask LLVM to."""
    more = {"activation": "prelu", "residual": "add", "residual_channels": 32, "residual_layout": Layout(4)}
    attrs = attributes(Kind((1, 1)), 1, (4, 4), (8, 4), 4, 20, (0, 0), **more)
    template, target = conv2d.Conv2DTemplate(attrs, ARM), load_target("rpi4").to_tvm()

    def pairs(target: tvm.target.Target) -> int:
        compiled = tvm.compile(alone(template.kernel(template.default)), target)
        return len(re.findall(r"(?:ldp|stp)\tq", compiled.mod.inspect_source("asm")))

    plain = {key: value for key, value in target.export().items() if key not in ("cl-opt", "tag")}
    assert pairs(target) > pairs(tvm.target.Target(plain)) + 4


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize(("width", "blocks"), [(4, 1), (9, 3), (40, 8), (80, 4)])
def test_tiles_of_neighbours_fit_into_registers(width: int, blocks: int, lanes: int):
    tiles = neighbour_tiles(width, blocks, lanes // 4, lanes)
    assert 0 < len(set(tiles)) == len(tiles)
    for tile in tiles:
        assert tile.pixels % 4 == 0
        assert tile.pixels <= width
        assert blocks % tile.blocks == 0
        assert tile.pixels * tile.blocks * lanes // 4 + tile.pixels * lanes // 16 + 2 <= 30


@pytest.mark.parametrize("width", [1, 5, 12, 40])
def test_vectors_of_arm(agrees, width: int):
    """Twice the registers of SSE for the same lanes: another tile."""
    agrees(attributes(KINDS["1x1"], 1, (1, 4), (5, 4), 2, width, (0, 1), activation="relu"), NEON)


@pytest.mark.parametrize("transposed", [False, True])
def test_transposed_and_plain_weights_are_not_mistaken(transposed: bool):
    """OC x IC and IC x OC: what is read together is one input channel of a tile's output channels."""
    kind = KINDS["transposed 3x3"] if transposed else KINDS["3x3"]
    attrs = attributes(kind, 1, (1, 4), (2, 8), 4, 4, (0, 0))
    tile = conv2d.tile_of(attrs, UNITS[8])
    shape = (4, 16, 3, 3) if transposed else (16, 4, 3, 3)
    weight = np.arange(np.prod(shape)).reshape(shape)
    packed = conv2d.pack_weight(weight, attrs, tile)
    assert packed.shape == (16 // (8 * tile.blocks), 3, 3, 4, 8 * tile.blocks)
    expected = weight[3, :8, 2, 1] if transposed else weight[:8, 3, 2, 1]
    assert np.array_equal(packed[0, 2, 1, 3, :8], expected)


@pytest.mark.parametrize(
    ("name", "width", "reach"),
    [
        ("1x1", 9, 0),
        ("3x3", 9, 1),
        ("3x3 dilation 16", 9, 16),
        ("1x5", 9, 2),
        ("5x1", 9, 0),
        ("2x2 stride 2", 9, 0),
        ("3x3 stride 2", 9, 1),
        ("3x3 without padding", 9, 0),
        ("transposed 2x2", 9, 0),
        ("transposed 3x3", 9, 1),
    ],
)
def test_columns_read_past_the_edge(name: str, width: int, reach: int):
    attrs = attributes(KINDS[name], 1, (1, 4), (1, 4), 4, width, (0, 0))
    assert attrs.data_layout.pad == conv2d.column_reach(attrs) == reach


def test_a_transposed_convolution_multiplies_no_inserted_zero():
    """Each input value meets each weight once, in one of the four phases."""
    for name in ("transposed 2x2", "transposed 3x3", "transposed 4x4"):
        attrs = attributes(KINDS[name], 1, (1, 4), (1, 4), 4, 4, (0, 0))
        taps = [tap for _, tap, _, _ in conv2d.transposed_taps(attrs)]
        assert sorted(taps) == list(range(attrs.kernel[0] * attrs.kernel[1]))
