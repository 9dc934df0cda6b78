"""The end of a bottleneck and the beginning of the next in one kernel: what lies between them stays in shared memory.

A block computes all channels of some pixels, in three steps, each a product of a matrix of weights and one of inputs, channels
by pixels, in shared memory:

- `conv`: position after position of its kernel, the inputs that its pixels take there are copied into shared memory. So any
  dilation and step costs the same, and reads no more than the pixels it needs;
- `expand`, as many channels at a time as its threads compute together: they are written, and kept for
- `reduce`, whose sums go on from some channels to the next.

A thread's pixels are neighbours by vectors, and those of neighbouring threads follow them: loads and stores are whole sectors,
and no two lanes of a quarter of a warp need the same bank of shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, convolution_features
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import (
    BottleneckTile,
    bottleneck_tiles,
    plane_vector,
    shared_rows,
    unrolled_inputs,
)
from enet_tvm.compiler.kernels.gpu.building import VECTOR, barrier, both, for_each, for_threads, if_all, private, shared
from enet_tvm.compiler.kernels.gpu.conv2d import Epilogue, epilogue_arguments, gpu_operands
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuBottleneckTemplate:
    """The end of a bottleneck and the beginning of the next on a GPU.

    Attributes
    ----------
    spec : FusedBottleneck
        The convolutions, their `layers` left out.
    unit : GpuUnit
        Multiprocessors of the GPU, and the limits of its threads.
    """

    spec: FusedBottleneck
    unit: GpuUnit
    spec_type: ClassVar[type] = FusedBottleneck
    point_type: ClassVar[type] = BottleneckTile

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether everything is plain NCHW, follows from the one before it, and is divided by some tile."""
        parts, expand = spec.convolutions, spec.expand
        if any(part.transposed or part.argmax for part in parts):
            return False
        if any({part.data_layout, part.out_layout, part.residual_layout} != {PLANAR} for part in parts):
            return False
        plain = all(part.residual == "none" for part in parts if part is not expand)
        pointwise = all(part.is_pointwise for part in parts if part is not spec.conv)
        return plain and pointwise and len(parts) > 1 and bool(bottleneck_tiles(spec, unit))

    @classmethod
    def of(cls, spec: FusedBottleneck, unit: GpuUnit) -> Self:
        """Return the template for a call."""
        return cls(spec.without_layers(), unit)

    @property
    def name(self) -> str:
        """The convolutions and their shape."""
        return self.spec.kernel_name

    @property
    def default(self) -> BottleneckTile:
        """The launch that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return bottleneck_tiles(self.spec, self.unit)

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_bottleneck(self.spec, point)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the data, then the packed weight, bias, slopes and shortcut of one convolution after the other."""
        operands: list[relax.Expr] = [arguments[0]]
        tile = _group_tile(point)
        for part, of_part in zip(self.spec.convolutions, self.spec.split(arguments), strict=True):
            given = ConvolutionArguments.of(part, of_part)
            operands += gpu_operands(given, pack_bottleneck_weight(given.weight, point), tile)[1:]
        return operands

    def features(self, point: BottleneckTile) -> list[float]:
        """Return the features of the widening convolution and of this tile."""
        width = self.spec.out_shape[3]
        return convolution_features(self.spec.expand, point.lanes, width, point.pixels, point.channels, point.rows)


def pack_bottleneck_weight(weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
    """Return weights (OC x IC x KH x KW) as kernel row and column, input channel, vector of a thread, thread, channel of it.

    What threads side by side load at a time lies side by side.
    """
    outputs, inputs, rows, columns = weight.shape
    width = min(VECTOR, tile.channels)
    grouped = weight.reshape(outputs // tile.channels, tile.channels // width, width, inputs, rows, columns)
    return np.ascontiguousarray(grouped.transpose(4, 5, 3, 1, 0, 2))


def gpu_bottleneck(spec: FusedBottleneck, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a bottleneck.

    Its arguments are the data; for each of ``spec.convolutions`` the weight, as `pack_bottleneck_weight` orders it, bias, inner
    slope, slope, residual and window as far as it has them, called ``expand_weight`` and so on; the output of ``reduce`` where
    there is one, and that of ``expand``. Tensors are plain NCHW.
    """
    arguments: Arguments = {"data": (spec.data_shape, "float32")}
    for name, part in _named(spec).items():
        width = min(VECTOR, tile.channels)
        groups = (tile.channels // width, part.out_shape[1] // tile.channels, width)
        arguments[f"{name}_weight"] = ((*part.kernel, part.data_shape[1], *groups), "float32")
        more = epilogue_arguments(part, _group_tile(tile))
        arguments |= {f"{name}_{key}": value for key, value in more.items()}
    if spec.reduce is not None:
        arguments["reduced"] = (spec.reduce.out_shape, "float32")
    arguments["out"] = (spec.expand.out_shape, "float32")

    def body(*buffers: Any) -> None:
        _Bottleneck(spec, tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def _group_tile(tile: BottleneckTile) -> GpuTile:
    """Return a tile with the same groups of channels, by which weights and vectors lie."""
    return GpuTile(tile.pixels, tile.channels, tile.lanes, 1)


def _named(spec: FusedBottleneck) -> dict[str, FusedConv2D]:
    parts = {"conv": spec.conv, "expand": spec.expand, "reduce": spec.reduce}
    return {name: part for name, part in parts.items() if part is not None}


class _Bottleneck:
    """Emits the kernel; methods are its steps."""

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        self.spec = spec
        self.tile = tile
        self.buffers = buffers
        self.height, self.width = spec.expand.out_shape[2:]
        self.total = self.height * self.width
        self.vector = plane_vector(spec)
        self.first_rows, self.second_rows = shared_rows(spec, tile)
        self.epilogues = {
            name: Epilogue(part, {key.removeprefix(f"{name}_"): buffer for key, buffer in buffers.items()})
            for name, part in _named(spec).items()
        }

    def emit(self) -> None:
        """Emit the launch."""
        spec, tile = self.spec, self.tile
        blocks = (-(-self.total // tile.block_pixels), 1, spec.expand.out_shape[0])
        with for_threads(blocks, (tile.lanes, tile.rows)) as (block, _, picture, lane, row):
            self.first, self.picture, self.lane, self.row = block * tile.block_pixels, picture, lane, row
            self.shared = shared((self.first_rows + self.second_rows, tile.block_pixels))
            if spec.conv is None:
                self._copy_inputs(spec.expand, 0, 0, 0)
            else:
                self._convolve(spec.conv)
            barrier()
            reduced = None if spec.reduce is None else self._zeros()
            with T.serial(spec.expand.out_shape[1] // tile.chunk, unroll=False) as turn:
                self._expand(turn)
                if spec.reduce is not None:
                    barrier()
                    self._add_reduced(spec.reduce, reduced, turn)
            if spec.reduce is not None:
                self._finish(spec.reduce, "reduce", reduced, self._store_reduced)

    def _convolve(self, conv: FusedConv2D) -> None:
        """Leave the result of `conv` in the first part of the shared memory."""
        positions = conv.kernel[0] * conv.kernel[1]
        group, split, splits = self._share_of(conv)
        inputs = conv.data_shape[1] // splits
        acc = self._zeros()
        with T.serial(conv.kernel[0], unroll=False) as kh, T.serial(conv.kernel[1], unroll=False) as kw:
            # The two parts take turns, so that one barrier is enough, and the last turn is that of the second.
            place = T.floormod(positions - (kh * conv.kernel[1] + kw), 2) * self.first_rows
            self._copy_inputs(conv, kh, kw, place)
            barrier()
            self._accumulate(acc, place + split * inputs, "conv", group, split * inputs, inputs, (kh, kw))

        def keep(values: Any, channel: Any, _count: int) -> None:
            self._store_shared(values, channel)

        self._finish(conv, "conv", acc, keep)

    def _copy_inputs(self, part: FusedConv2D, kh: Any, kw: Any, place: Any) -> None:
        """Copy what the pixels of the block take at a position of the kernel into rows from `place` on."""
        tile, inputs = self.tile, part.data_shape[1]
        thread = self.row * tile.lanes + self.lane
        beside = max(1, tile.threads // tile.block_pixels)
        own, channel = (
            (thread, 0) if beside == 1 else (T.floormod(thread, tile.block_pixels), T.floordiv(thread, tile.block_pixels))
        )
        for start in range(0, tile.block_pixels, min(tile.threads, tile.block_pixels)):
            pixel = self.first + own + start
            row, column, tests = self._place(part, pixel, kh, kw)
            with for_each(inputs // beside) as (step,):
                value = self.buffers["data"][self.picture, channel + step * beside, row, column]
                if tests:
                    value = tvm.tirx.if_then_else(both(*tests), value, T.float32(0))
                T.buffer_store(self.shared, value, [place + channel + step * beside, own + start])

    def _place(self, part: FusedConv2D, pixel: Any, kh: Any, kw: Any) -> tuple[Any, Any, list[Any]]:
        """Return the row and column of the input that a pixel takes, and the tests that they are inside."""
        tests = [pixel < self.total] if self.total % self.tile.block_pixels else []
        found = []
        for axis, (out, k) in enumerate(((T.floordiv(pixel, self.width), kh), (T.floormod(pixel, self.width), kw))):
            extent, reach = part.data_shape[2 + axis], (part.kernel[axis] - 1) * part.dilation[axis]
            place = out * part.strides[axis] + k * part.dilation[axis] - part.padding[axis]
            if part.padding[axis]:
                tests.append(place >= 0)
            if (part.out_shape[2 + axis] - 1) * part.strides[axis] + reach - part.padding[axis] >= extent:
                tests.append(place < extent)
            found.append(place)
        return found[0], found[1], tests

    def _expand(self, turn: Any) -> None:
        """Compute and write some channels of `expand`; keep them for `reduce` in the second part of the shared memory."""
        tile, inputs = self.tile, self.spec.expand.data_shape[1]
        acc = self._zeros()
        group = turn * tile.rows + self.row
        self._accumulate(acc, 0, "expand", group, 0, inputs)
        if self.spec.reduce is not None:
            barrier()  # Until all have read the channels of the turn before.
        with for_each(tile.channels) as (c,):
            channel = group * tile.channels + c
            values = self._ended("expand", lambda i, at=c: acc[i, at], channel)
            self._store(self.buffers["out"], values, channel)
            if self.spec.reduce is not None:
                self._store_shared(values, self.first_rows + self.row * tile.channels + c)

    def _add_reduced(self, reduce: FusedConv2D, acc: Any, turn: Any) -> None:
        """Add the products of those channels to the sums of `reduce`."""
        group, split, splits = self._share_of(reduce)
        inputs = self.tile.chunk // splits
        start = split * inputs
        self._accumulate(acc, self.first_rows + start, "reduce", group, turn * self.tile.chunk + start, inputs)

    def _store_reduced(self, values: Any, channel: Any, _count: int) -> None:
        self._store(self.buffers["reduced"], values, channel)

    def _share_of(self, part: FusedConv2D) -> tuple[Any, Any, int]:
        """Return a thread's group of channels, its part of the input channels, and how many parts there are."""
        groups = part.out_shape[1] // self.tile.channels
        splits = self.tile.rows // groups
        return (self.row, 0, 1) if splits == 1 else (T.floormod(self.row, groups), T.floordiv(self.row, groups), splits)

    def _zeros(self) -> Any:
        acc = private((self.tile.pixels, self.tile.channels))
        with for_each(self.tile.pixels, self.tile.channels) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        return acc

    def _accumulate(
        self, acc: Any, rows: Any, name: str, group: Any, start: Any, inputs: int, place: tuple[Any, Any] = (0, 0)
    ) -> None:
        """Add the products of `inputs` channels, in shared memory from a row on, with the weights from `start` on."""
        tile = self.tile
        unrolled = unrolled_inputs(tile, inputs)
        with T.serial(inputs // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
            k = outer * unrolled + inner
            weights, values = private((tile.channels,)), private((tile.pixels,))
            self._load_weights(weights, self.buffers[f"{name}_weight"], [*place, start + k], group)
            self._load_shared(values, rows + k)
            with for_each(tile.pixels, tile.channels) as (i, c):
                T.buffer_store(acc, acc[i, c] + values[i] * weights[c], [i, c])

    def _load_weights(self, weights: Any, packed: Any, leading: list[Any], group: Any) -> None:
        """Load the weights of a group of channels and one input channel."""
        width = min(VECTOR, self.tile.channels)
        for vector in range(self.tile.channels // width):
            if width == 1:
                T.buffer_store(weights, packed[(*leading, vector, group, 0)], [vector])
                continue
            with T.vectorized(width) as c:
                T.buffer_store(weights, packed[(*leading, vector, group, c)], [vector * width + c])

    def _finish(self, part: FusedConv2D, name: str, acc: Any, keep: Any) -> None:
        """End the sums of `conv` or `reduce`, added up where threads share them, and hand them to `keep` channel by channel."""
        tile = self.tile
        group, split, splits = self._share_of(part)
        share = tile.channels // splits
        channels, parts = part.out_shape[1], self.first_rows
        if splits > 1:
            barrier()  # Until all have read what lies there.
            with for_each(tile.channels) as (c,):
                values = private((tile.pixels,))
                with for_each(tile.pixels) as (i,):
                    T.buffer_store(values, acc[i, c], [i])
                self._store_shared(values, parts + split * channels + group * tile.channels + c)
            barrier()
        with for_each(share) as (c,):
            channel = group * tile.channels + split * share + c
            if splits == 1:
                values = self._ended(name, lambda i, at=c: acc[i, at], channel)
            else:
                total = private((tile.pixels,))
                self._load_shared(total, parts + channel)
                for other in range(1, splits):
                    more = private((tile.pixels,))
                    self._load_shared(more, parts + other * channels + channel)
                    with for_each(tile.pixels) as (i,):
                        T.buffer_store(total, total[i] + more[i], [i])
                values = self._ended(name, lambda i, of=total: of[i], channel)
            keep(values, channel, share)

    def _ended(self, name: str, value_of: Any, channel: Any) -> Any:
        """Return the final values of a thread's pixels of a channel."""
        epilogue, attrs = self.epilogues[name], self.epilogues[name].attrs
        epilogue.load(channel)
        values = private((self.tile.pixels,))
        shortcuts = None if attrs.residual == "none" else self._shortcuts(epilogue, channel)
        with for_each(self.tile.pixels) as (i,):
            shortcut = None if shortcuts is None else shortcuts[i]
            T.buffer_store(values, epilogue.ended(value_of(i), shortcut), [i])
        return values

    def _shortcuts(self, epilogue: Epilogue, channel: Any) -> Any:
        """Return what the shortcut adds to a thread's pixels of a channel; 0 outside the picture."""
        attrs, residual = epilogue.attrs, epilogue.buffers["residual"]
        values = private((self.tile.pixels,))
        with for_each(self.tile.pixels) as (i,):
            T.buffer_store(values, T.float32(0), [i])
        known = channel < attrs.residual_channels if attrs.residual == "pad" else None
        for start in range(0, self.tile.pixels, self.vector):
            pixel = self.first + self._pixel(start)
            with if_all(known, self._inside(pixel)):
                if attrs.residual == "unpool":
                    row, column = T.floordiv(pixel, self.width), T.floormod(pixel, self.width)
                    T.buffer_store(values, epilogue.shortcut(self.picture, channel, row, column), [start])
                elif self.vector == 1:
                    T.buffer_store(values, residual[self._at(channel, pixel)], [start])
                else:
                    with T.vectorized(self.vector) as e:
                        T.buffer_store(values, residual[self._at(channel, pixel + e)], [start + e])
        return values

    def _store(self, target: Any, values: Any, channel: Any) -> None:
        """Write a thread's pixels of a channel."""
        for start in range(0, self.tile.pixels, self.vector):
            pixel = self.first + self._pixel(start)
            with if_all(self._inside(pixel)):
                if self.vector == 1:
                    T.buffer_store(target, values[start], list(self._at(channel, pixel)))
                else:
                    with T.vectorized(self.vector) as e:
                        T.buffer_store(target, values[start + e], list(self._at(channel, pixel + e)))

    def _load_shared(self, values: Any, row: Any) -> None:
        for start in range(0, self.tile.pixels, self.vector):
            if self.vector == 1:
                T.buffer_store(values, self.shared[row, self._pixel(start)], [start])
            else:
                with T.vectorized(self.vector) as e:
                    T.buffer_store(values, self.shared[row, self._pixel(start) + e], [start + e])

    def _store_shared(self, values: Any, row: Any) -> None:
        for start in range(0, self.tile.pixels, self.vector):
            if self.vector == 1:
                T.buffer_store(self.shared, values[start], [row, self._pixel(start)])
            else:
                with T.vectorized(self.vector) as e:
                    T.buffer_store(self.shared, values[start + e], [row, self._pixel(start) + e])

    def _pixel(self, start: int) -> Any:
        """Return which pixel of the block a thread's pixel `start` is, the first of a vector."""
        return start * self.tile.lanes + self.lane * self.vector

    def _inside(self, pixel: Any) -> Any:
        return None if self.total % self.tile.block_pixels == 0 else pixel < self.total

    def _at(self, channel: Any, pixel: Any) -> tuple[Any, Any, Any, Any]:
        return self.picture, channel, T.floordiv(pixel, self.width), T.floormod(pixel, self.width)
