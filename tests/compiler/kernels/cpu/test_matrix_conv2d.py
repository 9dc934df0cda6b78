"""Convolutions by ARM's matrix instructions: on an emulated processor against PyTorch, and what LLVM makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from convolutions import KINDS
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler.arm.simulation import Simulation, build_program
from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate, column_reach
from enet_tvm.compiler.kernels.cpu.matrix_conv2d import MatrixConv2DTemplate, pack_matrix_weight
from enet_tvm.compiler.kernels.cpu.register_tile import MatrixUnit, RegisterTile, VectorUnit, matrix_tiles
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.quantisation.codes import IDENTITY, Codes, bfloat16_bits
from enet_tvm.targets import load_target
from enet_tvm.tuning.tasks import alone

BLOCKS = {"int8": 8, "bfloat16": 4}
UNITS = {dtype: VectorUnit.of(load_target("graviton3").to_tvm(), dtype) for dtype in BLOCKS}
INSTRUCTIONS = {"int8": "smmla", "bfloat16": "bfmmla"}
DATA, SHORTCUT = Codes(1.0, 3), Codes(0.5, 9)


def convolution(dtype: str, kind: str = "1x1", inputs: int = 16, outputs: int = 16, **more: Any) -> FusedConv2D:
    """Return a convolution of 5 rows of 9 pixels."""
    given, layout = KINDS[kind], Layout(BLOCKS[dtype], 0, dtype)
    attrs = FusedConv2D(
        data_shape=(1, inputs, 5, 9),
        out_shape=(1, outputs, *given.output(5, 9)),
        kernel=given.kernel,
        strides=given.strides,
        padding=given.padding,
        dilation=given.dilation,
        data_layout=layout,
        out_layout=replace(layout, pad=1),
        **more,
    )
    return replace(attrs, data_layout=replace(layout, pad=column_reach(attrs)))


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """The emulated processor."""
    try:
        tools = arm_tools()
    except UnavailableError as error:
        pytest.skip(str(error))
    target = load_target("graviton3").to_tvm()
    return Simulation(target, "neoverse-v1", 1, tools, build_program(tmp_path_factory.mktemp("program")))


def words(values: np.ndarray, layout: Layout, codes: Codes) -> np.ndarray:
    """Return an N x C x H x W array as words, what stands for zero in the columns of padding."""
    n, c, h, w = values.shape
    blocked = values.reshape(n, c // layout.block, layout.block, h, w).transpose(0, 1, 3, 4, 2)
    padded = np.pad(blocked, ((0, 0), (0, 0), (0, 0), (layout.pad, layout.pad), (0, 0)))
    if layout.codes:
        return np.ascontiguousarray(codes.encode(padded) ^ np.uint8(0x80)).view(np.uint32)
    return np.ascontiguousarray(bfloat16_bits(padded.astype(np.float32))).view(np.uint32)


def values(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the codes, or the numbers, of N x C x H x W in stored words."""
    if layout.codes:
        found = (stored.view(np.uint8) ^ np.uint8(0x80)).astype(np.float32)
    else:
        found = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    n, blocks, h, columns, block = found.shape
    inside = found[:, :, :, layout.pad : columns - layout.pad]
    return inside.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, columns - 2 * layout.pad)


def check(simulation: Simulation, attrs: FusedConv2D, directory: Path, tile: RegisterTile | None = None) -> None:
    """Compare what a kernel computes of whole numbers with what PyTorch does."""
    template = cpu_templates(UNITS[attrs.data_layout.dtype]).find(attrs)
    assert isinstance(template, MatrixConv2DTemplate)
    rng = np.random.default_rng(7)
    data = rng.integers(-3, 4, attrs.data_shape).astype(np.float32)
    weight = rng.integers(-3, 4, (attrs.out_shape[1], attrs.data_shape[1], *attrs.kernel)).astype(np.float32)
    if attrs.data_layout.codes:
        weight[:, 0, 0, 0] = 127  # The largest, so that weights are their own codes.
    bias, slope = (rng.integers(-3, 4, attrs.out_shape[1]).astype(np.float32) / 4 for _ in range(2))
    shortcut = rng.integers(-3, 4, attrs.out_shape).astype(np.float32)
    x, w, b = (torch.from_numpy(array) for array in (data, weight, bias))
    expected = F.conv2d(x, w, b, attrs.strides, attrs.padding, attrs.dilation)
    if attrs.residual == "add":
        expected = expected + torch.from_numpy(shortcut)
    expected = F.prelu(expected, torch.from_numpy(slope)) if attrs.activation == "prelu" else expected
    own = Codes.of(float(expected.min()), float(expected.max())) if attrs.out_layout.codes else IDENTITY

    tensors = [relax.Var(name, relax.TensorType(attrs.data_shape, "float32")) for name in ("data", "shortcut")]
    arguments = [tensors[0], constant(weight), constant(bias)]
    arguments += [constant(slope)] if attrs.activation == "prelu" else []
    arguments += [tensors[1]] if attrs.residual == "add" else []
    codes = TensorCodes([], {})
    codes.note(tensors[0], DATA)
    codes.note(tensors[1], SHORTCUT)
    stored = {tensors[0]: words(data, attrs.data_layout, DATA)}
    if attrs.residual == "add":
        stored[tensors[1]] = words(shortcut, attrs.residual_layout, SHORTCUT)
    point = tile or template.default
    inputs = [
        stored[operand] if operand in stored else constant_value(operand)
        for operand in template.operands(point, arguments, codes, own)
    ]
    out = simulation.computed(alone(template.kernel(point)), inputs, directory)
    found, layout = values(out, attrs.out_layout), attrs.out_layout
    if layout.codes:
        wanted = own.encode(expected.numpy()).astype(np.float32)
        assert np.abs(found - wanted).max() <= 1, "a tie may be rounded either way"
        assert np.abs(found - wanted).mean() < 0.02
        assert len(np.unique(found)) > 20
    else:
        # Stored as bfloat16, of eight bits.
        np.testing.assert_allclose(found, expected.numpy(), rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.parametrize("kind", ["1x1", "3x3", "3x3 dilation 4", "3x3 without padding", "1x5", "5x1"])
@pytest.mark.emulated
@pytest.mark.slow
def test_kinds(simulation: Simulation, tmp_path: Path, kind: str, dtype: str):
    check(simulation, convolution(dtype, kind), tmp_path)


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.emulated
@pytest.mark.slow
def test_shortcut_and_prelu(simulation: Simulation, tmp_path: Path, dtype: str):
    more = {"residual": "add", "residual_channels": 32, "residual_layout": Layout(BLOCKS[dtype], 2, dtype)}
    check(simulation, convolution(dtype, inputs=24, outputs=32, activation="prelu", **more), tmp_path)


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.emulated
@pytest.mark.slow
def test_tiles(simulation: Simulation, tmp_path: Path, dtype: str):
    """The largest and the smallest, the last of which in a row is moved left."""
    attrs = convolution(dtype, "1x5", outputs=2 * BLOCKS[dtype])
    for tile in (RegisterTile(2, 1), RegisterTile(8, 2)):
        check(simulation, attrs, tmp_path, tile)


@pytest.mark.parametrize("dtype", BLOCKS)
def test_instructions(dtype: str):
    """The loop multiplies matrices alone, and the sums stay in registers."""
    attrs = convolution(dtype, inputs=64, outputs=32)
    template = cpu_templates(UNITS[dtype]).find(attrs)
    assert isinstance(template, MatrixConv2DTemplate)
    compiled = tvm.compile(alone(template.kernel(template.default)), load_target("graviton3").to_tvm())
    lines = [line.strip() for line in compiled.mod.inspect_source("asm").splitlines()]
    places = [number for number, line in enumerate(lines) if line.startswith(f"{INSTRUCTIONS[dtype]}\t")]
    tile = template.default
    products = tile.pixels * tile.blocks * BLOCKS[dtype] // 4
    assert len(places) % products == 0, "LLVM may have copied the loop"
    loop = lines[places[0] : places[products - 1]]
    assert not [line for line in loop if line.startswith(("sdot", "bfdot", "ld1r", "str\t", "stp\t"))]
    assert len(loop) < 1.5 * products


def test_weights_lie_by_output_channel():
    """Two words, of eight bytes, for each."""
    attrs = convolution("int8")
    weight = np.arange(256, dtype=np.int32).astype(np.int8).reshape(16, 16, 1, 1)
    packed = pack_matrix_weight(weight, attrs, RegisterTile(4, 2))
    assert packed.shape == (1, 1, 1, 2, 32)
    assert np.array_equal(packed.view(np.int8).reshape(2, 16, 8)[1, 5], weight[5, 8:, 0, 0])


@pytest.mark.parametrize(
    ("target", "dtype", "unit"),
    [
        ("graviton3", "int8", MatrixUnit(8, 16, "aarch64")),
        ("graviton4", "bfloat16", MatrixUnit(4, 32, "aarch64")),
        ("graviton3", "float32", VectorUnit(4, 32, "aarch64")),
        ("graviton3", "float16", VectorUnit(8, 32, "aarch64")),
        ("rpi5", "int8", VectorUnit(4, 32, "aarch64")),
        ("jetson-orin-cpu", "int8", VectorUnit(4, 32, "aarch64")),
    ],
)
def test_which_processors_have_them(target: str, dtype: Any, unit: VectorUnit):
    assert VectorUnit.of(load_target(target).to_tvm(), dtype) == unit


@pytest.mark.parametrize(
    "other",
    [
        lambda attrs: replace(attrs, strides=(1, 2), out_shape=(1, 16, 5, 5)),
        lambda attrs: replace(attrs, data_layout=Layout(4, 0, "int8")),
        lambda attrs: replace(attrs, data_layout=Layout(8)),
        lambda attrs: replace(attrs, data_shape=(1, 16, 5, 1), out_shape=(1, 16, 5, 1)),
    ],
)
def test_what_is_left_to_dot_products(other: Callable[[FusedConv2D], FusedConv2D]):
    templates = cpu_templates(UNITS["int8"])
    assert isinstance(templates.find(convolution("int8")), MatrixConv2DTemplate)
    assert type(templates.find(other(convolution("int8")))) is Conv2DTemplate


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("width", [2, 3, 40, 80])
@pytest.mark.parametrize("blocks", [1, 3, 4, 8])
def test_tiles_fit_into_registers(lanes: int, width: int, blocks: int):
    tiles = matrix_tiles(lanes, width, blocks)
    assert 0 < len(set(tiles)) == len(tiles)
    for tile in tiles:
        assert tile.pixels % 2 == 0
        assert tile.pixels <= width
        assert blocks % tile.blocks == 0
        assert tile.pixels * tile.blocks * lanes // 4 + tile.pixels // 2 + 2 <= 30
