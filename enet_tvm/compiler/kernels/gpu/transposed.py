"""Transposed convolutions with stride 2 on a GPU: four outputs for each input pixel, and no work on inserted zeros.

A thread takes some input pixels and computes the 2x2 outputs that begin at each. Every output is a plain convolution with those
kernel positions that meet no inserted zero (`enet_tvm.compiler.kernels.common.taps`); the loop is over the input pixels that
they need, so that each is loaded once for all four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, convolution_features
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.gpu.building import both, copy_vectors, for_each, private
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConvolutionTemplate, PixelKernel, epilogue_arguments, gpu_operands
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes

Offset = tuple[int, int]


@dataclass(frozen=True)
class GpuTransposedTemplate(GpuConvolutionTemplate):
    """A fused transposed convolution that doubles height and width; the pixels of its tile are those of the input."""

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is transposed, of twice the input's size, without a shortcut, and ends in values, not in labels."""
        return spec.doubles and spec.residual == "none" and not spec.argmax

    def kernel(self, point: GpuTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_conv2d_transpose(self.spec, point)

    def operands(self, point: GpuTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return data, weights, bias and slopes in groups of channels."""
        given = ConvolutionArguments.of(self.spec, arguments)
        return gpu_operands(given, pack_transposed_weight(given.weight, self.spec, point), point)

    def features(self, point: GpuTile) -> list[float]:
        """Return the features of this tile."""
        return convolution_features(self.spec, point.lanes, self.spec.data_shape[3], point.pixels, point.channels, 4)


def pack_transposed_weight(weight: np.ndarray, attrs: FusedConv2D, tile: GpuTile) -> np.ndarray:
    """Return weights (IC x OC x KH x KW) as group of channels, tap in the order of use, input channel, channel of the group."""
    inputs, outputs, _, columns = weight.shape
    order = [tap for taps in _taps_by_offset(attrs).values() for _, tap in taps]
    groups = tile.channel_groups(outputs)
    packed = np.zeros((len(order), inputs, groups * tile.channels), weight.dtype)
    for place, tap in enumerate(order):
        packed[place, :, :outputs] = weight[:, :, tap // columns, tap % columns]
    grouped = packed.reshape(len(order), inputs, groups, tile.channels)
    return np.ascontiguousarray(grouped.transpose(2, 0, 1, 3))


def gpu_conv2d_transpose(attrs: FusedConv2D, tile: GpuTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused transposed convolution that doubles height and width.

    Its arguments are those of `enet_tvm.compiler.kernels.gpu.conv2d.gpu_conv2d`; `pack_transposed_weight` orders the weight.
    """
    if not attrs.doubles:
        raise ValueError("the template is for transposed convolutions that double height and width")
    taps = _taps_by_offset(attrs)
    arguments: Arguments = {
        "data": (attrs.data_shape, "float32"),
        "weight": (
            (tile.channel_groups(attrs.out_shape[1]), sum(map(len, taps.values())), attrs.data_shape[1], tile.channels),
            "float32",
        ),
        **epilogue_arguments(attrs, tile),
        "out": (attrs.out_shape, "float32"),
    }

    def body(*buffers: Any) -> None:
        _Transposed(attrs, tile, taps, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def _taps_by_offset(attrs: FusedConv2D) -> dict[Offset, list[tuple[Offset, int]]]:
    """Return for each input pixel around a thread's own the (phase, tap) pairs that take it."""
    taps: dict[Offset, list[tuple[Offset, int]]] = {}
    for phase, tap, dy, dx in transposed_taps(attrs):
        taps.setdefault((dy, dx), []).append((phase, tap))
    return dict(sorted(taps.items()))


class _Transposed(PixelKernel):
    def __init__(
        self, attrs: FusedConv2D, tile: GpuTile, taps: dict[Offset, list[tuple[Offset, int]]], buffers: dict[str, Any]
    ) -> None:
        super().__init__(attrs, tile, buffers, attrs.data_shape[2:], (2, 2))
        self.taps = taps

    def accumulate(self, acc: Any, picture: Any, group: Any, first: Any) -> None:
        place = 0
        for offset, taps in self.taps.items():
            self._add_pixel(acc, picture, group, first, offset, taps, place)
            place += len(taps)

    def store(self, acc: Any, i: Any, c: Any, place: tuple[Any, Any, Any, Any]) -> None:
        """Store the 2x2 outputs of a pixel, each pair of neighbours at once."""
        picture, channel, row, column = place
        with for_each(2) as (a,), T.vectorized(2) as b:
            out = (picture, channel, row * 2 + a, column * 2 + b)
            T.buffer_store(self.buffers["out"], self.epilogue(acc[i, c, a, b], *out), list(out))

    def _add_pixel(
        self, acc: Any, picture: Any, group: Any, first: Any, offset: Offset, taps: list[tuple[Offset, int]], place: int
    ) -> None:
        tile, inputs = self.tile, self.attrs.data_shape[1]
        data, weight = self.buffers["data"], self.buffers["weight"]
        with T.serial(inputs) as channel:
            pixels = private((tile.pixels,))
            for i in range(tile.pixels):
                pixel = first + i * tile.lanes
                row, column = T.floordiv(pixel, self.width) + offset[0], T.floormod(pixel, self.width) + offset[1]
                value, inside = data[picture, channel, row, column], self._inside(pixel, row, column, offset)
                if inside:
                    value = tvm.tirx.if_then_else(both(*inside), value, T.float32(0))
                T.buffer_store(pixels, value, [i])
            for number, ((a, b), _) in enumerate(taps):
                weights = private((tile.channels,))
                copy_vectors(weights, tile.channels, weight, [group, place + number, channel], 0)
                with for_each(tile.pixels, tile.channels) as (i, c):
                    T.buffer_store(acc, acc[i, c, a, b] + pixels[i] * weights[c], [i, c, a, b])

    def _inside(self, pixel: Any, row: Any, column: Any, offset: Offset) -> list[Any]:
        tests = [] if self.exact else [pixel < self.total]
        for place, extent, shift in ((row, self.height, offset[0]), (column, self.width, offset[1])):
            if shift < 0:
                tests.append(place >= 0)
            elif shift > 0:
                tests.append(place < extent)
        return tests
