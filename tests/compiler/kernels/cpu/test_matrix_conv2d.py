"""Convolutions by ARM's matrix instructions: on an emulated processor against PyTorch, and what LLVM makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from arm_kernels import check_on_arm, short_convolution

from enet_tvm.compiler.arm.simulation import Simulation
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.matrix_conv2d import MatrixConv2DTemplate, pack_matrix_weight
from enet_tvm.compiler.kernels.cpu.register_tile import MatrixUnit, RegisterTile, VectorUnit, matrix_tiles
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.ops.layout import DType
from enet_tvm.targets import load_target
from enet_tvm.tuning.tasks import alone

BLOCKS: dict[DType, int] = {"int8": 8, "bfloat16": 4}
UNITS = {dtype: VectorUnit.of(load_target("graviton3").to_tvm(), dtype) for dtype in BLOCKS}
INSTRUCTIONS = {"int8": "smmla", "bfloat16": "bfmmla"}


def convolution(dtype: DType, *kind: str, **more: Any) -> FusedConv2D:
    """Return a convolution that matrix instructions are for."""
    attrs = short_convolution(dtype, BLOCKS[dtype], *kind, **more)
    assert isinstance(cpu_templates(UNITS[dtype]).find(attrs), MatrixConv2DTemplate)
    return attrs


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.parametrize("kind", ["1x1", "3x3", "3x3 dilation 4", "3x3 without padding", "1x5", "5x1"])
@pytest.mark.emulated
@pytest.mark.slow
def test_kinds(emulated_kernels: Simulation, tmp_path: Path, kind: str, dtype: DType):
    check_on_arm(emulated_kernels, convolution(dtype, kind), UNITS[dtype], tmp_path)


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.emulated
@pytest.mark.slow
def test_shortcut_and_prelu(emulated_kernels: Simulation, tmp_path: Path, dtype: DType):
    more = {"residual": "add", "residual_channels": 32, "residual_layout": Layout(BLOCKS[dtype], 2, dtype)}
    check_on_arm(
        emulated_kernels, convolution(dtype, inputs=24, outputs=32, activation="prelu", **more), UNITS[dtype], tmp_path
    )


@pytest.mark.parametrize("dtype", BLOCKS)
@pytest.mark.emulated
@pytest.mark.slow
def test_tiles(emulated_kernels: Simulation, tmp_path: Path, dtype: DType):
    """The largest and the smallest, the last of which in a row is moved left."""
    attrs = convolution(dtype, "1x5", outputs=2 * BLOCKS[dtype])
    for tile in (RegisterTile(2, 1), RegisterTile(8, 2)):
        check_on_arm(emulated_kernels, attrs, UNITS[dtype], tmp_path, tile)


@pytest.mark.parametrize("dtype", BLOCKS)
def test_instructions(dtype: DType):
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
        ("rpi5", "int8", VectorUnit(8, 16, "aarch64")),
        ("jetson-orin-cpu", "int8", VectorUnit(8, 16, "aarch64")),
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
