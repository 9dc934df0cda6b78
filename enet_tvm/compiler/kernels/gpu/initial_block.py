"""ENet's initial block on a GPU: the picture is read once, and the concatenation never exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import Arguments, activated, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import convolution_features, known
from enet_tvm.compiler.kernels.gpu.building import WARP, both, copy_vectors, for_each, for_threads, if_all, private
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit, TiledSums, in_order
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, InitialBlockAttrs
from enet_tvm.compiler.quantisation.codes import Codes

Shape = tuple[int, int, int, int]

_LANES = 4 * WARP
_SMALLEST = GpuUnit(1, 80)
"""A GPU whose tiles fit into the registers of all others."""

_LARGEST_GROUP = 16
"""Most output channels of a thread: with all of ENet's 16, each value of the picture is loaded once."""


@dataclass(frozen=True)
class GpuInitialBlockTemplate:
    """ENet's initial block on a GPU.

    Attributes
    ----------
    shape : tuple of int
        N x C x H x W of the picture.
    filters : int
        Output channels of its convolution.
    pool : int
        Height and width of the window of its pooling.
    unit : GpuUnit
        Multiprocessors of the GPU, and the limits of its threads.
    """

    shape: Shape
    filters: int
    pool: int
    unit: GpuUnit
    spec_type: ClassVar[type] = InitialBlockAttrs
    point_type: ClassVar[type] = GpuTile

    @classmethod
    def covers(cls, spec: InitialBlockAttrs, unit: GpuUnit) -> bool:
        """Whether the output is plain NCHW, as everything on a GPU is."""
        return spec.data_layout == spec.out_layout == PLANAR

    @classmethod
    def of(cls, spec: InitialBlockAttrs, unit: GpuUnit) -> Self:
        """Return the template for a call."""
        return cls(spec.data_shape, spec.filters, spec.pool, unit)

    @property
    def name(self) -> str:
        """Name of the kernel, the same for every shape: a network has one."""
        return "initial_block"

    @property
    def default(self) -> GpuTile:
        """The launch that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[GpuTile]:
        """Return the launches worth measuring."""
        return initial_tiles(self.filters + self.shape[1], self.unit, self.shape)

    def kernel(self, point: GpuTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_initial_block(self.shape, self.filters, self.pool, point)

    def operands(self, point: GpuTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return the picture, weights in groups of channels, the bias of all channels, scale, shift and slopes."""
        data, weight, bias, *vectors = arguments
        inputs = self.shape[1]
        packed = pack_gpu_initial_weight(known(weight), self.filters + inputs, point)
        padded = np.concatenate([known(bias), np.zeros(inputs, "float32")])
        return [data, constant(packed), constant(padded), *vectors]

    def features(self, point: GpuTile) -> list[float]:
        """Return the features of this tile."""
        n, inputs, height, width = self.shape
        out_shape = (n, self.filters + inputs, height // 2, width // 2)
        spec = FusedConv2D(self.shape, out_shape, (3, 3), (2, 2), (1, 1), (1, 1))
        return convolution_features(spec, point.lanes, width // 2, point.pixels, point.channels, 1)


def initial_tiles(channels: int, unit: GpuUnit = _SMALLEST, shape: Shape = (1, 3, 64, 64)) -> list[GpuTile]:
    """Return the launches of a block of so many channels for a picture: every thread has as many as divide them.

    They are in the order of `enet_tvm.compiler.kernels.gpu.tile.gpu_tiles`.
    """
    n, inputs, height, width = shape
    sums = TiledSums(height // 2 * (width // 2), channels, inputs, 9, n)
    counts = [c for c in range(_LARGEST_GROUP, 0, -1) if channels % c == 0]
    return in_order(unit, sums, [GpuTile(p, c, _LANES, 1) for p in (1, 2, 4, 8) for c in counts if p * c <= unit.accumulators])


def pack_gpu_initial_weight(weight: np.ndarray, channels: int, tile: GpuTile) -> np.ndarray:
    """Return the filters (F x C x 3 x 3) as group of channels, row, column, input channel, channel; zero for pooled ones."""
    filters, inputs = weight.shape[:2]
    group = tile.channels
    full = np.zeros((channels, inputs, 3, 3), weight.dtype)
    full[:filters] = weight
    return np.ascontiguousarray(full.reshape(channels // group, group, inputs, 3, 3).transpose(0, 3, 4, 2, 1))


def gpu_initial_block(shape: Shape, filters: int, pool_size: int = 2, tile: GpuTile | None = None) -> tvm.tirx.PrimFunc:
    """Return the kernel: data, weight, bias (of all channels), scale, shift, slope -> out; tensors are plain NCHW.

    Parameters
    ----------
    shape : tuple of int
        N x C x H x W of the picture, H and W even.
    filters : int
        Output channels of the convolution; the C pooled channels follow them.
    pool_size : {2, 3}
        Window of the pooling, stride 2: 2x2, or 3x3 padded by 1.
    tile : GpuTile, optional
        One of `initial_tiles`; the first by default.
    """
    n, inputs, height, width = shape
    channels, rows, columns = filters + inputs, height // 2, width // 2
    tile = tile or initial_tiles(channels)[0]
    group_size, pixels, total = tile.channels, tile.pixels, rows * columns
    arguments: Arguments = {
        "data": (shape, "float32"),
        "weight": ((channels // group_size, 3, 3, inputs, group_size), "float32"),
        "bias": ((channels,), "float32"),
        "scale": ((inputs,), "float32"),
        "shift": ((inputs,), "float32"),
        "slope": ((channels,), "float32"),
        "out": ((n, channels, rows, columns), "float32"),
    }

    def body(data: Any, weight: Any, bias: Any, scale: Any, shift: Any, slope: Any, out: Any) -> None:
        exact = total % (_LANES * pixels) == 0

        def source(picture: Any, channel: Any, pixel: Any, kh: int, kw: int, outside: float) -> Any:
            """Return what position (kh, kw) of a pixel's window reads; there is nothing outside below and at the right."""
            place = (T.floordiv(pixel, columns) * 2 + kh - 1, T.floormod(pixel, columns) * 2 + kw - 1)
            value = data[picture, channel, place[0], place[1]]
            tests = [side >= 0 for side, k in zip(place, (kh, kw), strict=True) if k == 0]
            tests += [] if exact else [pixel < total]
            return tvm.tirx.if_then_else(both(*tests), value, T.float32(outside)) if tests else value

        def pooled(picture: Any, channel: Any, pixel: Any) -> Any:
            """Return the largest value of a pixel's window."""
            best = None
            for kh in range(3 - pool_size, 3):
                for kw in range(3 - pool_size, 3):
                    candidate = source(picture, channel, pixel, kh, kw, float(np.finfo(np.float32).min))
                    best = candidate if best is None else T.max(best, candidate)
            return best

        def finish(acc: Any, picture: Any, group: Any, pixel: Any, i: int) -> None:
            """Store the channels of a pixel; the pooled ones are the last of all."""
            first_pooled = filters - (channels - group_size) if channels > group_size else filters
            for c in range(group_size):
                channel = group * group_size + c
                place = [picture, channel, T.floordiv(pixel, columns), T.floormod(pixel, columns)]
                convolved = activated(acc[i, c] + bias[channel], "prelu", lambda at=channel: slope[at])
                if c < first_pooled:
                    # In no group is this one of the pooled channels.
                    T.buffer_store(out, convolved, place)
                    continue
                with T.If(channel < filters):
                    with T.Then():
                        T.buffer_store(out, convolved, place)
                    with T.Else():
                        own = channel - filters
                        value = pooled(picture, own, pixel) * scale[own] + shift[own]
                        T.buffer_store(out, activated(value, "prelu", lambda at=channel: slope[at]), place)

        blocks = (-(-total // (_LANES * pixels)), channels // group_size, n)
        with for_threads(blocks, (_LANES, 1)) as (block, group, picture, lane, _):
            first = block * (_LANES * pixels) + lane
            acc = private((pixels, group_size))
            with for_each(pixels, group_size) as (i, c):
                T.buffer_store(acc, T.float32(0), [i, c])
            for kh in range(3):
                for kw in range(3):
                    with T.serial(inputs) as channel:
                        weights, values = private((group_size,)), private((pixels,))
                        copy_vectors(weights, group_size, weight, [group, kh, kw, channel], 0)
                        for i in range(pixels):
                            T.buffer_store(values, source(picture, channel, first + i * _LANES, kh, kw, 0.0), [i])
                        with for_each(pixels, group_size) as (i, c):
                            T.buffer_store(acc, acc[i, c] + values[i] * weights[c], [i, c])
            for i in range(pixels):
                pixel = first + i * _LANES
                with if_all(None if exact else pixel < total):
                    finish(acc, picture, group, pixel, i)

    return prim_func(arguments, body)
