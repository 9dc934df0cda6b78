"""Convolutions of bytes and bfloat16 by kernels for ARM, run on an emulated processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convolutions import KINDS
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler.arm.simulation import Simulation
from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate, column_reach
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile, VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.ops.layout import DType
from enet_tvm.compiler.quantisation.codes import IDENTITY, Codes, bfloat16_bits
from enet_tvm.tuning.tasks import alone

DATA, SHORTCUT = Codes(1.0, 3), Codes(0.5, 9)


def short_convolution(
    dtype: DType, block: int, kind: str = "1x1", inputs: int = 16, outputs: int = 16, **more: Any
) -> FusedConv2D:
    """Return a convolution of 5 rows of 9 pixels."""
    given, layout = KINDS[kind], Layout(block, 0, dtype)
    attrs = FusedConv2D(
        data_shape=(1, inputs, 5, 9),
        out_shape=(1, outputs, *given.output(5, 9)),
        kernel=given.kernel,
        strides=given.strides,
        padding=given.padding,
        dilation=given.dilation,
        transposed=given.transposed,
        data_layout=layout,
        out_layout=replace(layout, pad=1),
        **more,
    )
    return replace(attrs, data_layout=replace(layout, pad=column_reach(attrs)))


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


def check_on_arm(
    simulation: Simulation, attrs: FusedConv2D, unit: VectorUnit, directory: Path, tile: RegisterTile | None = None
) -> None:
    """Compare what a kernel for ARM computes of whole numbers, on an emulated processor, with what PyTorch does."""
    template = cpu_templates(unit).find(attrs)
    assert isinstance(template, Conv2DTemplate)
    rng = np.random.default_rng(7)
    data = rng.integers(-3, 4, attrs.data_shape).astype(np.float32)
    sides = (attrs.out_shape[1], attrs.data_shape[1])
    weight = rng.integers(-3, 4, (*(sides[::-1] if attrs.transposed else sides), *attrs.kernel)).astype(np.float32)
    if attrs.data_layout.codes:
        # The largest, so that weights are their own codes.
        weight[(0, slice(None), 0, 0) if attrs.transposed else (slice(None), 0, 0, 0)] = 127
    bias, slope = (rng.integers(-3, 4, attrs.out_shape[1]).astype(np.float32) / 4 for _ in range(2))
    shortcut = rng.integers(-3, 4, attrs.out_shape).astype(np.float32)
    x, w, b = (torch.from_numpy(array) for array in (data, weight, bias))
    if attrs.transposed:
        output_padding = attrs.out_shape[2] - F.conv_transpose2d(x, w, b, attrs.strides, attrs.padding).shape[2]
        expected = F.conv_transpose2d(x, w, b, attrs.strides, attrs.padding, output_padding)
    else:
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
