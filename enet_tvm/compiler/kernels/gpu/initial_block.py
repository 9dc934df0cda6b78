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
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, InitialBlockAttrs
from enet_tvm.compiler.quantisation.codes import Codes

Shape = tuple[int, int, int, int]

_LANES = 4 * WARP
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
        """The launch whose threads compute the most channels."""
        return self.points()[0]

    def points(self) -> list[GpuTile]:
        """Return the launches worth measuring: threads of one pixel, and of the more channels the earlier."""
        return initial_tiles(self.filters + self.shape[1])

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


def initial_tiles(channels: int) -> list[GpuTile]:
    """Return the launches of a block of so many channels: every thread has as many as divide them, the most first."""
    groups = [c for c in range(_LARGEST_GROUP, 0, -1) if channels % c == 0]
    return [GpuTile(1, group, _LANES, 1) for group in groups]


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
    group_size, total = (tile or initial_tiles(channels)[0]).channels, rows * columns
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
        def source(picture: Any, channel: Any, row: Any, column: Any, kh: int, kw: int, outside: float) -> Any:
            """Return what position (kh, kw) of the window reads; there is nothing outside below and at the right."""
            place = (row * 2 + kh - 1, column * 2 + kw - 1)
            value = data[picture, channel, place[0], place[1]]
            tests = [side >= 0 for side, k in zip(place, (kh, kw), strict=True) if k == 0]
            return tvm.tirx.if_then_else(both(*tests), value, T.float32(outside)) if tests else value

        blocks = (-(-total // _LANES), channels // group_size, n)
        with for_threads(blocks, (_LANES, 1)) as (block, group, picture, lane, _):
            pixel = block * _LANES + lane
            row, column = T.floordiv(pixel, columns), T.floormod(pixel, columns)
            with if_all(None if total % _LANES == 0 else pixel < total):
                acc = private((group_size,))
                with for_each(group_size) as (c,):
                    T.buffer_store(acc, T.float32(0), [c])
                for kh in range(3):
                    for kw in range(3):
                        with T.serial(inputs) as channel:
                            weights = private((group_size,))
                            value = private((1,))
                            copy_vectors(weights, group_size, weight, [group, kh, kw, channel], 0)
                            T.buffer_store(value, source(picture, channel, row, column, kh, kw, 0.0), [0])
                            with for_each(group_size) as (c,):
                                T.buffer_store(acc, acc[c] + value[0] * weights[c], [c])
                for c in range(group_size):
                    channel = group * group_size + c
                    convolved = activated(acc[c] + bias[channel], "prelu", lambda at=channel: slope[at])
                    first_pooled = filters - (channels - group_size) if channels > group_size else filters
                    if c < first_pooled:
                        # In no group is this one of the pooled channels, which are the last ones of all.
                        T.buffer_store(out, convolved, [picture, channel, row, column])
                        continue
                    with T.If(channel < filters):
                        with T.Then():
                            T.buffer_store(out, convolved, [picture, channel, row, column])
                        with T.Else():
                            pooled = channel - filters
                            best = None
                            for kh in range(3 - pool_size, 3):
                                for kw in range(3 - pool_size, 3):
                                    outside = float(np.finfo(np.float32).min)
                                    candidate = source(picture, pooled, row, column, kh, kw, outside)
                                    best = candidate if best is None else T.max(best, candidate)
                            value = activated(best * scale[pooled] + shift[pooled], "prelu", lambda at=channel: slope[at])
                            T.buffer_store(out, value, [picture, channel, row, column])

    return prim_func(arguments, body)
