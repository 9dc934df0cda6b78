"""ENet's initial block with the pooling and the 2x2 convolution after it in one kernel.

It is the kernel of a bottleneck, whose widening convolution takes what lies in the windows of its pixels: the block's 3x3
convolution is a 1x1 one of as many values as there are channels and positions, which are copied into shared memory first. There
the channels that are pooled find their windows as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import known
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel, bottleneck_kernel
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.building import both, for_each, private
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D, InitialDownsampler
from enet_tvm.compiler.ops.initial_downsampler import BLOCK_ARGUMENTS
from enet_tvm.compiler.quantisation.codes import Codes

_POSITIONS = 9
_POOLED = (4, 5, 7, 8)
"""Positions of a pixel's 3x3 window that its 2x2 window of the pooling has too."""


@dataclass(frozen=True)
class GpuInitialDownsamplerTemplate:
    """ENet's initial block, and what a bottleneck that downsamples begins with, on a GPU.

    Attributes
    ----------
    spec : InitialDownsampler
        The block and the convolution, their `layers` left out.
    unit : GpuUnit
        Multiprocessors of the GPU, and the limits of its threads.
    """

    spec: InitialDownsampler
    unit: GpuUnit
    spec_type: ClassVar[type] = InitialDownsampler
    point_type: ClassVar[type] = BottleneckTile

    @classmethod
    def covers(cls, spec: InitialDownsampler, unit: GpuUnit) -> bool:
        """Whether the pooling is one of 2x2, as the paper has it, and the bottleneck of the same sizes is covered."""
        planar = spec.block.data_layout == spec.block.out_layout == PLANAR
        fits = spec.reduce.data_shape == spec.block.out_shape and spec.reduce.strides == (2, 2)
        covered = GpuBottleneckTemplate.covers(bottleneck_like(spec), unit)
        return planar and fits and spec.block.pool == 2 and covered and bool(cls.of(spec, unit).points())

    @classmethod
    def of(cls, spec: InitialDownsampler, unit: GpuUnit) -> Self:
        """Return the template for a call."""
        return cls(spec.without_layers(), unit)

    @property
    def name(self) -> str:
        """Name of the kernel, the same for every shape: a network has one."""
        return "initial_block_downsampled"

    @property
    def default(self) -> BottleneckTile:
        """The launch that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return [tile for tile in self._alike.points() if _has_pixels_enough(tile)]

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_initial_downsampler(self.spec, point)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the picture, scale and shift of the pooled channels, then weight, bias and slope of both convolutions."""
        data, weight, bias, scale, shift, slope = arguments[:BLOCK_ARGUMENTS]
        inputs = self.spec.block.data_shape[1]
        padded = constant(np.concatenate([known(bias), np.zeros(inputs, "float32")]))
        flat = constant(windows_weight(known(weight), inputs))
        rest = self._alike.operands(point, [data, flat, padded, slope, *arguments[BLOCK_ARGUMENTS:]], codes, own)
        return [data, scale, shift, *rest[1:]]

    def features(self, point: BottleneckTile) -> list[float]:
        """Return the features of the bottleneck of the same sizes."""
        return self._alike.features(point)

    @property
    def _alike(self) -> GpuBottleneckTemplate:
        return GpuBottleneckTemplate(bottleneck_like(self.spec), self.unit)


def bottleneck_like(spec: InitialDownsampler) -> FusedBottleneck:
    """Return the bottleneck whose widening convolution reads, as channels, the windows of the block's pixels."""
    n, inputs, _, _ = spec.block.data_shape
    out_shape = spec.block.out_shape
    data_shape = (n, inputs * _POSITIONS, *out_shape[2:])
    expand = FusedConv2D(data_shape, out_shape, (1, 1), (1, 1), (0, 0), (1, 1), activation="prelu")
    return FusedBottleneck(expand, None, spec.reduce, pooled=True, kept=False)


def windows_weight(weight: np.ndarray, pooled: int) -> np.ndarray:
    """Return filters (F x C x 3 x 3) as weights of windows (F + `pooled` x 9C x 1 x 1), zero for the pooled channels."""
    flat = weight.reshape(weight.shape[0], -1)
    return np.concatenate([flat, np.zeros((pooled, flat.shape[1]), weight.dtype)])[:, :, None, None]


def gpu_initial_downsampler(spec: InitialDownsampler, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel: picture, scale, shift, the arguments of `bottleneck_like` after its data, and ``spec.outputs``."""
    pooled = ((spec.block.data_shape[1],), "float32")
    first = {"data": (spec.data_shape, "float32"), "scale": pooled, "shift": pooled}
    return bottleneck_kernel(bottleneck_like(spec), tile, _Downsampler, first)


def _has_pixels_enough(tile: BottleneckTile) -> bool:
    """Whether every thread of a block copies windows of pixels of its own."""
    return tile.threads <= tile.block_pixels


class _Downsampler(BottleneckKernel):
    """The kernel of a bottleneck whose data is a picture of twice the size, and some of whose channels are pooled."""

    def _copy_inputs(self, part: FusedConv2D, kh: Any, kw: Any, place: Any) -> None:
        """Copy the windows of the block's pixels, each value of theirs into a row; 0 outside, which no pooling reads."""
        tile, data = self.tile, self.buffers["data"]
        thread = self.row * tile.lanes + self.lane
        for start in range(0, tile.block_pixels, tile.threads):
            slot = thread + start
            inside = self.pixels.inside(self.block, slot)
            at = self.pixels.place(self.block, slot)
            for number in range(part.data_shape[1]):
                channel, position = divmod(number, _POSITIONS)
                sides = [2 * out + k - 1 for out, k in zip(at, divmod(position, 3), strict=True)]
                tests = [] if inside is None else [inside]
                # The picture is even, so that windows reach out of it at the top and at the left alone.
                tests += [side >= 0 for side, k in zip(sides, divmod(position, 3), strict=True) if k == 0]
                value = data[self.picture, channel, sides[0], sides[1]]
                if tests:
                    value = tvm.tirx.if_then_else(both(*tests), value, T.float32(0))
                T.buffer_store(self.shared, value, [place + number, slot])

    def _ended(self, name: str, value_of: Any, channel: Any, count: int | None = None) -> Any:
        """Return the final values of a thread's pixels of a channel, which may be a pooled one."""
        if name != "expand":
            return super()._ended(name, value_of, channel, count)
        filters = self.spec.expand.out_shape[1] - self.spec.expand.data_shape[1] // _POSITIONS
        own = channel - filters
        values, best = private((self.tile.pixels,)), private((self.tile.pixels,))
        with for_each(self.tile.pixels) as (i,):
            T.buffer_store(values, value_of(i), [i])
        with T.If(own >= 0), T.Then():
            for number, position in enumerate(_POOLED):
                more = private((self.tile.pixels,))
                self._load_shared(more, own * _POSITIONS + position)
                with for_each(self.tile.pixels) as (i,):
                    T.buffer_store(best, T.max(best[i], more[i]) if number else more[i], [i])
            with for_each(self.tile.pixels) as (i,):
                T.buffer_store(values, best[i] * self.buffers["scale"][own] + self.buffers["shift"][own], [i])
        return super()._ended(name, lambda i: values[i], channel, count)
