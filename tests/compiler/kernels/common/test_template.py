"""Every point of a template computes the same, and its description tells points apart."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import tvm
from bottlenecks import bottleneck
from initial_downsamplers import downsampler
from quick_code import unoptimised
from tvm import relax

from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.template import OnlyPoint, Template
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.downsampler import DownsamplerTemplate
from enet_tvm.compiler.kernels.cpu.initial_block import InitialBlockTemplate
from enet_tvm.compiler.kernels.cpu.planar import PlanarTemplate
from enet_tvm.compiler.kernels.cpu.pooling import MaxPool2DTemplate, MaxUnpool2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd import WinogradTemplate
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_doubling import GpuUpsamplingBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_half2 import GpuHalf2BottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_head import GpuLastBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.conv2d_halves import GpuHalf2Conv2DTemplate
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.initial_block import GpuInitialBlockTemplate
from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate, GpuMaxUnpool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.kernels.gpu.transposed import GpuLabellingTemplate, GpuTransposedTemplate
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D, InitialBlockAttrs, Layout, MaxPool2DWithWindow, MaxUnpool2D
from enet_tvm.compiler.quantisation.codes import IDENTITY
from enet_tvm.targets import load_target

UNIT, GPU = VectorUnit(lanes=4, registers=16), GpuUnit(1, 80)
HALVES = VectorUnit(lanes=8, registers=32, isa="aarch64")
BLOCKED, PADDED = Layout(4), Layout(4, 1)
DIRECT = FusedConv2D((1, 8, 5, 14), (1, 16, 5, 14), (3, 3), (1, 1), (1, 1), (1, 1), data_layout=PADDED, out_layout=BLOCKED)
DOUBLING = FusedConv2D(
    (1, 8, 3, 14), (1, 16, 6, 28), (3, 3), (2, 2), (1, 1), (1, 1), transposed=True, data_layout=PADDED, out_layout=BLOCKED
)
LOGITS = FusedConv2D((1, 8, 3, 14), (1, 11, 6, 28), (2, 2), (2, 2), (0, 0), (1, 1), transposed=True, data_layout=BLOCKED)
PLAIN = FusedConv2D((1, 6, 5, 14), (1, 12, 5, 14), (3, 3), (1, 1), (1, 1), (1, 1), activation="prelu")
WIDE = FusedConv2D((1, 12, 5, 14), (1, 48, 5, 14), (1, 1), (1, 1), (0, 0), (1, 1), activation="prelu")
UP = FusedConv2D((1, 6, 3, 7), (1, 11, 6, 14), (2, 2), (2, 2), (0, 0), (1, 1), transposed=True)
LABELS = FusedConv2D((1, 6, 3, 9), (1, 11, 6, 18), (3, 3), (2, 2), (1, 1), (1, 1), transposed=True, argmax=True)
INITIAL = InitialBlockAttrs((1, 3, 8, 28), 13, out_layout=BLOCKED)
DOWN = InitialBlockAttrs((1, 8, 8, 28), 8, 2, PADDED, BLOCKED)


def in_float16(spec: Any) -> Any:
    """Return the call with tensors of float16 in blocks of eight channels, where it has blocks."""
    layouts = {name: getattr(spec, name) for name in ("data_layout", "out_layout")}
    return replace(spec, **{name: Layout(8, layout.pad, "float16") for name, layout in layouts.items() if layout.block})


VARIED: list[tuple[type, Any, Any]] = [
    (Conv2DTemplate, DIRECT, UNIT),
    (Conv2DTemplate, DOUBLING, UNIT),
    (WinogradTemplate, DIRECT, UNIT),
    (BlockedWinogradTemplate, DIRECT, UNIT),
    (PlanarTemplate, LOGITS, UNIT),
    (InitialBlockTemplate, INITIAL, UNIT),
    (DownsamplerTemplate, DOWN, UNIT),
    *(
        (kind, in_float16(spec), HALVES)
        for kind, spec in (
            (Conv2DTemplate, DIRECT),
            (Conv2DTemplate, DOUBLING),
            (BlockedWinogradTemplate, DIRECT),
            # Of other channels than in float32: vectors of four pixels are among the points of both.
            (PlanarTemplate, replace(LOGITS, out_shape=(1, 13, 6, 28))),
            (InitialBlockTemplate, INITIAL),
            (DownsamplerTemplate, DOWN),
        )
    ),
    (GpuConv2DTemplate, PLAIN, GPU),
    (GpuTransposedTemplate, UP, GPU),
    (GpuLabellingTemplate, LABELS, GPU),
    (GpuInitialBlockTemplate, InitialBlockAttrs((1, 3, 8, 28), 13), GPU),
]
FIXED: list[tuple[type, Any, Any]] = [
    (MaxPool2DTemplate, MaxPool2DWithWindow((1, 8, 6, 4), BLOCKED, BLOCKED), UNIT),
    (MaxUnpool2DTemplate, MaxUnpool2D((1, 8, 3, 2), (6, 4), BLOCKED, BLOCKED), UNIT),
    (GpuMaxPool2DTemplate, MaxPool2DWithWindow((1, 8, 6, 4)), GPU),
    (GpuMaxUnpool2DTemplate, MaxUnpool2D((1, 8, 3, 2), (6, 4)), GPU),
]
ELSEWHERE: list[tuple[type, Any, Any]] = [
    (GpuBottleneckTemplate, FusedBottleneck(WIDE, PLAIN), GPU),
    (GpuUpsamplingBottleneckTemplate, bottleneck((8, 32, 8), (8, 20), doubling=3, residual="unpool"), GPU),
    (GpuLastBottleneckTemplate, bottleneck((8, 16, 5), (6, 9), head=True), GPU),
    (GpuInitialDownsamplerTemplate, downsampler((1, 3, 24, 48), 13, 16), GPU),
    (GpuHalf2BottleneckTemplate, bottleneck((8, 16, 8), (6, 8)), GPU),
    (GpuHalf2Conv2DTemplate, PLAIN, GPU),
]
"""Templates whose threads do not run one after the other: tests of their own compare their points."""
CASES = [(kind.of(spec, unit), spec) for kind, spec, unit in VARIED]
TEMPLATES = [*(template for template, _ in CASES), *(kind.of(spec, unit) for kind, spec, unit in ELSEWHERE)]
NAMES = [f"{type(template).__name__}-{template.name}-{getattr(template.unit, 'lanes', 'gpu')}" for template in TEMPLATES]


def arguments_of(spec: Any) -> list[relax.Expr]:
    """Return arguments of the operator's call: the data as a variable, everything else as constants of random numbers."""
    random = np.random.default_rng(0)

    def some(*shape: int) -> relax.Constant:
        return constant(random.standard_normal(shape).astype("float32"))

    data = relax.Var("data", relax.TensorType(spec.data_shape, "float32"))
    channels = spec.out_shape[1]
    if isinstance(spec, InitialBlockAttrs):
        inputs = spec.data_shape[1]
        return [data, some(spec.filters, inputs, 3, 3), some(spec.filters), some(inputs), some(inputs), some(channels)]
    sides = (spec.data_shape[1], channels) if spec.transposed else (channels, spec.data_shape[1])
    return [data, some(*sides, *spec.kernel), some(channels), *([some(channels)] if spec.activation == "prelu" else [])]


def result(template: Template, spec: Any, point: Any) -> np.ndarray:
    kernel = template.kernel(point)
    shapes = [tuple(int(s) for s in param.ty.shape) for param in kernel.params]
    data = np.random.default_rng(1).standard_normal(shapes[0]).astype(str(kernel.params[0].ty.dtype))
    if spec.data_layout.pad:
        data[..., [0, -1], :] = 0
    _, *operands = template.operands(point, arguments_of(spec), TensorCodes([], {}), IDENTITY)
    dtype = str(kernel.params[-1].ty.dtype)
    unwritten = np.full(shapes[-1], 255 if dtype == "uint8" else np.nan, dtype)
    arrays = [data, *(constant_value(operand) for operand in operands), unwritten]
    assert [array.shape for array in arrays] == shapes
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    main = serial_threads(kernel) if isinstance(template.unit, GpuUnit) else kernel
    # Without this processor's own instructions, each number of float16 would be converted by a function.
    target = load_target("native").to_tvm() if template.unit == HALVES else tvm.target.Target({"kind": "llvm"})
    tvm.compile(tvm.IRModule({"main": main.with_attr("global_symbol", "main")}), unoptimised(target))["main"](*tensors)
    return tensors[-1].numpy()


@pytest.mark.parametrize(("template", "spec"), CASES, ids=NAMES[: len(CASES)])
def test_points_are_different_and_the_default_is_their_first(template, spec):
    points = template.points()
    assert len(points) > 1
    assert points[0] == template.default
    assert len(set(points)) == len(points)


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["first and last", "every"])
@pytest.mark.parametrize(("template", "spec"), CASES, ids=NAMES[: len(CASES)])
def test_every_point_computes_the_same(template, spec, every):
    points = template.points() if every else [template.points()[0], template.points()[-1]]
    expected = result(template, spec, points[0])
    assert np.isfinite(expected).any()
    assert expected.dtype != "uint8" or expected.max() < 255
    # Transforms of other sizes round differently.
    winograd = isinstance(template, WinogradTemplate | BlockedWinogradTemplate)
    relative, tolerance = 1e-5, 1e-4 if winograd else 1e-5
    if template.unit == HALVES:
        relative, tolerance = 2**-9, 2**-2 if winograd else 2**-7
    for point in points[1:]:
        np.testing.assert_allclose(result(template, spec, point), expected, rtol=relative, atol=tolerance)


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_points_are_plain_values(template):
    for point in template.points():
        assert template.point_type(**json.loads(json.dumps(asdict(point)))) == point
    unit = asdict(HALVES) if template.unit == HALVES else {"lanes": 4, "registers": 16, "isa": "x86"}
    if isinstance(template.unit, GpuUnit):
        unit = {"multiprocessors": 1, "max_registers": 80, "max_threads_per_block": 1024}
        unit |= {"l1_bytes": 64, "l1_latency": 85}
    assert json.loads(json.dumps(asdict(template)))["unit"] == unit


def test_features_tell_points_apart():
    rows = {tuple(template.features(point)) for template in TEMPLATES for point in template.points()}
    assert len(rows) == sum(len(template.points()) for template in TEMPLATES)
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(("kind", "spec", "unit"), FIXED, ids=[kind.__name__ for kind, _, _ in FIXED])
def test_what_has_no_parameters(kind, spec, unit):
    assert kind.covers(spec, unit)
    template = kind.of(spec, unit)
    assert (template.point_type, template.points(), template.default) == (OnlyPoint, [OnlyPoint()], OnlyPoint())
    assert template.kernel(OnlyPoint()).attrs["tirx.is_scheduled"]


@pytest.mark.parametrize(
    ("kind", "spec", "unit"), [*VARIED, *ELSEWHERE, *FIXED], ids=lambda value: getattr(value, "__name__", None)
)
def test_layers_are_no_part_of_a_template(kind, spec, unit):
    """Kernels of the same operator are the same whatever layer they are of."""
    assert isinstance(kind.of(spec, unit), Template)
    if hasattr(kind.of(spec, unit), "spec"):
        assert kind.of(spec, unit).spec.layers == ()
