"""Convolutions on a GPU, plain NCHW: a register tile in each thread, everything around it in the epilogue.

A thread sums `pixels` x `channels` outputs, or its part of the input channels of them where several share a tile and add their
sums up in shared memory. Its pixels are counted through the whole plane, row after row, so no width wastes
a thread. The loop over kernel positions is outside and that over input channels inside: what a position's row and column mean
for each pixel, and whether they are inside the picture, is found out once for all channels. A step of the inner loop loads one
value for each pixel, coalesced over the threads, and the weights of the channels, which are the same for a whole warp.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import Arguments, activated, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, ConvolutionTemplate, convolution_features, known
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.gpu.building import (
    barrier,
    both,
    copy_vectors,
    for_each,
    for_threads,
    if_all,
    padded_vector,
    private,
    shared,
)
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit, TiledSums, gpu_tile, gpu_tiles, unrolled_channels
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuConvolutionTemplate(ConvolutionTemplate):
    """A fused convolution on a GPU, whose points are launches.

    Attributes
    ----------
    spec : FusedConv2D
        The convolution, its `layers` left out.
    unit : GpuUnit
        Multiprocessors of the GPU, and the limits of its threads.
    """

    unit: GpuUnit
    point_type: ClassVar[type] = GpuTile

    @property
    def default(self) -> GpuTile:
        """The launch that is expected to be the fastest."""
        return convolution_tile(self.spec, self.unit)

    def points(self) -> list[GpuTile]:
        """Return the launches worth measuring."""
        return gpu_tiles(self.unit, tiled_sums(self.spec))


@dataclass(frozen=True)
class GpuConv2DTemplate(GpuConvolutionTemplate):
    """A fused convolution that is not transposed."""

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is not transposed, and ends in values, not in labels."""
        return not spec.transposed and not spec.argmax

    def kernel(self, point: GpuTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_conv2d(self.spec, point)

    def operands(self, point: GpuTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return data, weights, bias and slopes in groups of channels, and the shortcut."""
        given = ConvolutionArguments.of(self.spec, arguments)
        return gpu_operands(given, pack_gpu_weight(given.weight, point), point)

    def features(self, point: GpuTile) -> list[float]:
        """Return the features of this tile."""
        return convolution_features(
            self.spec, point.lanes, self.spec.out_shape[3], point.pixels, point.channels, 1 / point.splits
        )


def convolution_tile(attrs: FusedConv2D, unit: GpuUnit) -> GpuTile:
    """Return the launch of a convolution that is expected to be the fastest."""
    return gpu_tile(unit, tiled_sums(attrs))


def tiled_sums(attrs: FusedConv2D) -> TiledSums:
    """Return what the tiles of a convolution are cut from; of a transposed one a thread computes four outputs a pixel."""
    n, inputs, height, width = attrs.data_shape
    channels, area = attrs.out_shape[1], attrs.kernel[0] * attrs.kernel[1]
    if not attrs.transposed:
        return TiledSums(attrs.out_shape[2] * attrs.out_shape[3], channels, inputs, area, n)
    reads = len({(dy, dx) for _, _, dy, dx in transposed_taps(attrs)}) if attrs.doubles else area
    return TiledSums(height * width, channels, inputs, area, n, reads, phases=4)


def gpu_operands(given: ConvolutionArguments, packed: np.ndarray, tile: GpuTile) -> list[relax.Expr]:
    """Return the arguments of the kernel of a convolution with these packed weights."""
    vectors = [given.bias, *map(known, given.slopes)]
    return [
        given.data,
        constant(packed),
        *(constant(pack_gpu_vector(vector, tile)) for vector in vectors),
        *given.shortcut,
    ]


def pack_gpu_weight(weight: np.ndarray, tile: GpuTile) -> np.ndarray:
    """Return weights (OC x IC x KH x KW) as group of channels, kernel row and column, input channel, channel of the group.

    Groups are filled up with zeros.
    """
    outputs, inputs, rows, columns = weight.shape
    groups = tile.channel_groups(outputs)
    full = np.zeros((groups * tile.channels, inputs, rows, columns), weight.dtype)
    full[:outputs] = weight
    grouped = full.reshape(groups, tile.channels, inputs, rows, columns)
    return np.ascontiguousarray(grouped.transpose(0, 3, 4, 2, 1))


def pack_gpu_vector(values: np.ndarray, tile: GpuTile) -> np.ndarray:
    """Return a bias or a slope (OC) filled up with zeros to whole groups of channels."""
    return padded_vector(values, tile.padded_channels(values.size))


def gpu_conv2d(attrs: FusedConv2D, tile: GpuTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused convolution that is not transposed.

    Its arguments are data, weight (as `pack_gpu_weight` orders it), bias, then inner slope, slope (all as `pack_gpu_vector`
    makes them), residual and window as far as the operator has them, and the output; tensors are plain NCHW.
    """
    if attrs.transposed:
        raise ValueError("a transposed convolution has a template of its own")
    arguments = _arguments(attrs, tile)

    def body(*buffers: Any) -> None:
        _Conv2D(attrs, tile, dict(zip(arguments, buffers, strict=True)), attrs.out_shape[2:]).emit()

    return prim_func(arguments, body)


def epilogue_arguments(attrs: FusedConv2D, tile: GpuTile) -> Arguments:
    """Return the arguments between the weight and the output."""
    n, channels, height, width = attrs.out_shape
    vector = ((tile.padded_channels(channels),), "float32")
    arguments: Arguments = {"bias": vector}
    if attrs.inner_activation == "prelu":
        arguments["inner_slope"] = vector
    if attrs.activation == "prelu":
        arguments["slope"] = vector
    if attrs.residual == "unpool":
        height, width = height // 2, width // 2
    if attrs.residual != "none":
        arguments["residual"] = ((n, attrs.residual_channels, height, width), "float32")
    if attrs.residual == "unpool":
        arguments["window"] = ((n, channels, height, width), "uint8")
    return arguments


def _arguments(attrs: FusedConv2D, tile: GpuTile) -> Arguments:
    groups = tile.channel_groups(attrs.out_shape[1])
    return {
        "data": (attrs.data_shape, "float32"),
        "weight": ((groups, *attrs.kernel, attrs.data_shape[1], tile.channels), "float32"),
        **epilogue_arguments(attrs, tile),
        "out": (attrs.out_shape, "float32"),
    }


class Epilogue:
    """What happens to a sum before it is stored: bias, inner activation, shortcut, activation."""

    def __init__(self, attrs: FusedConv2D, buffers: dict[str, Any]) -> None:
        self.attrs = attrs
        self.buffers = buffers
        self._vectors: dict[str, Any] = {}

    def load(self, channel: Any) -> None:
        """Emit the loads of what all pixels of a channel share, for the calls that follow."""
        for name in ("bias", "inner_slope", "slope"):
            if name in self.buffers:
                self._vectors[name] = private((1,))
                T.buffer_store(self._vectors[name], self.buffers[name][channel], [0])

    def __call__(self, value: Any, picture: Any, channel: Any, row: Any, column: Any) -> Any:
        """Return the final value of an output pixel."""
        shortcut = None if self.attrs.residual == "none" else self.shortcut(picture, channel, row, column)
        return self.ended(value, shortcut)

    def ended(self, value: Any, shortcut: Any | None = None) -> Any:
        """Return the final value of an output pixel to which `shortcut` is added."""
        attrs, vectors = self.attrs, self._vectors
        value = value + vectors["bias"][0]
        value = activated(value, attrs.inner_activation, lambda: vectors["inner_slope"][0])
        if shortcut is not None:
            value = value + shortcut
        return activated(value, attrs.activation, lambda: vectors["slope"][0])

    def shortcut(self, picture: Any, channel: Any, row: Any, column: Any) -> Any:
        """Return what the shortcut adds to an output pixel."""
        residual, zero = self.buffers["residual"], T.float32(0)
        if self.attrs.residual == "unpool":
            place = (picture, channel, T.floordiv(row, 2), T.floordiv(column, 2))
            position = T.cast(T.floormod(row, 2) * 2 + T.floormod(column, 2), "uint8")
            return T.Select(self.buffers["window"][place] == position, residual[place], zero)
        if self.attrs.residual == "pad":
            known = self.attrs.residual_channels
            return tvm.tirx.if_then_else(channel < known, residual[picture, channel, row, column], zero)
        return residual[picture, channel, row, column]


class PixelKernel(ABC):
    """What both kinds of convolution share: each thread sums a tile of pixels and channels, then ends and stores its sums.

    Parameters
    ----------
    attrs : FusedConv2D
        The convolution.
    tile : GpuTile
        Pixels and channels of a thread, and threads of a block.
    buffers : dict
        The kernel's arguments by name.
    size : (int, int)
        Height and width of the plane that the threads are laid over, in pixels.
    sums : tuple of int
        Shape of the sums of one pixel and channel.
    """

    def __init__(
        self, attrs: FusedConv2D, tile: GpuTile, buffers: dict[str, Any], size: tuple[int, int], sums: tuple[int, ...] = ()
    ) -> None:
        self.attrs = attrs
        self.tile = tile
        self.buffers = buffers
        self.height, self.width = size
        self.sums = sums
        self.total = self.height * self.width
        self.exact = self.total % (tile.lanes * tile.pixels) == 0
        self.epilogue = Epilogue(attrs, buffers)

    def emit(self) -> None:
        """Emit the launch."""
        tile, channels = self.tile, self.attrs.out_shape[1]
        blocks = (*tile.blocks(self.total, channels), self.attrs.out_shape[0])
        with for_threads(blocks, (tile.lanes, tile.groups * tile.splits)) as (block, block_of_groups, picture, lane, beside):
            first = block * (tile.lanes * tile.pixels) + lane
            group, split = (block_of_groups * tile.groups + beside, 0) if tile.splits == 1 else (block_of_groups, beside)
            acc = private((tile.pixels, tile.channels, *self.sums))
            with for_each(tile.pixels, tile.channels, *self.sums) as index:
                T.buffer_store(acc, T.float32(0), list(index))
            self.accumulate(acc, picture, group, first, split * (self.attrs.data_shape[1] // tile.splits))
            if tile.splits > 1:
                parts = self._share(acc, lane, split)
                acc = private((tile.pixels, tile.channels // tile.splits, *self.sums))
                self._add_parts(acc, parts, lane, split)
            with for_each(tile.channels // tile.splits) as (c,):
                channel = group * tile.channels + split * (tile.channels // tile.splits) + c
                self.epilogue.load(channel)
                known = None if channels % tile.channels == 0 else channel < channels
                with if_all(known), for_each(tile.pixels) as (i,):
                    pixel = first + i * tile.lanes
                    row, column = T.floordiv(pixel, self.width), T.floormod(pixel, self.width)
                    with if_all(None if self.exact else pixel < self.total):
                        self.store(acc, i, c, (picture, channel, row, column))

    def _share(self, acc: Any, lane: Any, split: Any) -> Any:
        """Emit the stores of a thread's partial sums to shared memory, and the barrier after them."""
        tile = self.tile
        parts = shared((tile.channels, tile.pixels, *self.sums, tile.splits, tile.lanes))
        with for_each(tile.pixels, tile.channels, *self.sums) as (i, c, *phase):
            T.buffer_store(parts, acc[(i, c, *phase)], [c, i, *phase, split, lane])
        barrier()
        return parts

    def _add_parts(self, acc: Any, parts: Any, lane: Any, split: Any) -> None:
        """Emit the sums of all parts for a thread's share of the channels."""
        tile = self.tile
        share = tile.channels // tile.splits
        with for_each(tile.pixels, share, *self.sums) as (i, c, *phase):
            total = parts[(split * share + c, i, *phase, 0, lane)]
            for part in range(1, tile.splits):
                total = total + parts[(split * share + c, i, *phase, part, lane)]
            T.buffer_store(acc, total, [i, c, *phase])

    @abstractmethod
    def accumulate(self, acc: Any, picture: Any, group: Any, first: Any, start: Any = 0) -> None:
        """Emit the sums of a thread; `first` is its first pixel, `start` its first input channel."""

    @abstractmethod
    def store(self, acc: Any, i: Any, c: Any, place: tuple[Any, Any, Any, Any]) -> None:
        """Emit the store of the sums of a thread's pixel `i` and channel `c`, which is at `place`."""


class _Conv2D(PixelKernel):
    def store(self, acc: Any, i: Any, c: Any, place: tuple[Any, Any, Any, Any]) -> None:
        T.buffer_store(self.buffers["out"], self.epilogue(acc[i, c], *place), list(place))

    def accumulate(self, acc: Any, picture: Any, group: Any, first: Any, start: Any = 0) -> None:
        attrs, tile = self.attrs, self.tile
        data, weight, inputs = self.buffers["data"], self.buffers["weight"], attrs.data_shape[1] // tile.splits
        unrolled = unrolled_channels(tile.pixels, tile.channels, inputs)
        with T.serial(attrs.kernel[0]) as kh, T.serial(attrs.kernel[1]) as kw:
            places = [self._place(first + i * tile.lanes, kh, kw) for i in range(tile.pixels)]
            with T.serial(inputs // unrolled) as outer, T.unroll(unrolled) as inner:
                channel = start + outer * unrolled + inner
                weights, pixels = private((tile.channels,)), private((tile.pixels,))
                copy_vectors(weights, tile.channels, weight, [group, kh, kw, channel], 0)
                for i, (row, column, inside) in enumerate(places):
                    value = data[picture, channel, row, column]
                    if inside:
                        value = tvm.tirx.if_then_else(both(*inside), value, T.float32(0))
                    T.buffer_store(pixels, value, [i])
                with for_each(tile.pixels, tile.channels) as (i, c):
                    T.buffer_store(acc, acc[i, c] + pixels[i] * weights[c], [i, c])

    def _place(self, pixel: Any, kh: Any, kw: Any) -> tuple[Any, Any, list[Any]]:
        """Return the row and column of the input that a pixel takes, and the tests that they are inside."""
        attrs, tests = self.attrs, []
        sides = (T.floordiv(pixel, self.width), T.floormod(pixel, self.width))
        found = []
        for axis, (out, k) in enumerate(zip(sides, (kh, kw), strict=True)):
            extent, reach = attrs.data_shape[2 + axis], (attrs.kernel[axis] - 1) * attrs.dilation[axis]
            place = out * attrs.strides[axis] + k * attrs.dilation[axis] - attrs.padding[axis]
            if attrs.padding[axis]:
                tests.append(place >= 0)
            if (attrs.out_shape[2 + axis] - 1) * attrs.strides[axis] + reach - attrs.padding[axis] >= extent:
                tests.append(place < extent)
            found.append(place)
        if not self.exact:
            tests.append(pixel < self.total)
        return found[0], found[1], tests
