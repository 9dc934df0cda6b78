"""The end of a bottleneck and the beginning of the next in one kernel: what lies between them stays in shared memory.

A block computes all channels of some pixels, in three steps, each a product of a matrix of weights and one of inputs, channels
by pixels, in shared memory:

- `conv`: position after position of its kernel, the inputs that its pixels take there are copied into shared memory. So any
  dilation and step costs the same, and reads no more than the pixels it needs;
- `expand`, as many channels at a time as its threads compute together: they are written, and kept for
- `reduce`, whose sums go on from some channels to the next. One of 2x2 with stride 2 is such a product too: of each pixel with
  the weights of its place in its cell, and the four sums of a cell are added up at the end. Where there is `beside`, a thread
  has some channels of both, fewer than of the others, so that there are registers for the sums and each pixel is loaded once.

A thread's pixels are neighbours by vectors, and those of neighbouring threads follow them: loads and stores are whole sectors,
and no two lanes of a quarter of a warp need the same bank of shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, convolution_features
from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns, PixelOrder
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import (
    BottleneckTile,
    bottleneck_tiles,
    cell_runs,
    channels_of,
    narrowed_together,
    plane_vector,
    row_length,
    shared_rows,
    unrolled_inputs,
)
from enet_tvm.compiler.kernels.gpu.building import (
    VECTOR,
    barrier,
    both,
    for_each,
    for_threads,
    for_vector,
    if_all,
    private,
    shared,
)
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
        if spec.in_cells and (any(side % 2 for side in expand.out_shape[2:]) or expand.residual == "unpool"):
            return False
        if spec.beside is not None and (spec.reduce is None or spec.in_cells or not spec.beside.is_pointwise):
            return False
        plain = all(part.residual == "none" for part in parts if part is not expand)
        local = expand.is_pointwise and (spec.reduce is None or spec.reduce.is_pointwise or _is_of_cells(spec.reduce))
        return plain and local and (len(parts) > 1 or spec.pooled) and bool(bottleneck_tiles(spec, unit))

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
        for (name, part), of_part in zip(self.spec.named.items(), self.spec.split(arguments), strict=True):
            given, tile = ConvolutionArguments.of(part, of_part), _tile_of(name, self.spec, point)
            operands += gpu_operands(given, self.packed(part, given.weight, tile), _group_tile(tile))[1:]
        return operands

    def packed(self, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weights of a convolution as the kernel reads them."""
        return (pack_cell_weight if _is_of_cells(part) else pack_bottleneck_weight)(weight, tile)

    def features(self, point: BottleneckTile) -> list[float]:
        """Return the features of the widening convolution and of this tile."""
        width = self.spec.out_shape[3]
        return convolution_features(self.spec.expand, point.lanes, width, point.pixels, point.channels, point.rows)


def pack_bottleneck_weight(weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
    """Return weights (OC x IC x KH x KW) as kernel row and column, input channel, vector of a thread, thread, channel of it.

    What threads side by side load at a time lies side by side.
    """
    outputs, inputs, rows, columns = weight.shape
    width = _vector_width(tile.channels)
    grouped = weight.reshape(outputs // tile.channels, tile.channels // width, width, inputs, rows, columns)
    return np.ascontiguousarray(grouped.transpose(4, 5, 3, 1, 0, 2))


def pack_cell_weight(weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
    """Return weights (OC x IC x 2 x 2) as input channel, vector of a thread, thread, place in a cell, channel of the vector."""
    return np.ascontiguousarray(
        np.moveaxis(pack_bottleneck_weight(weight, tile).reshape(4, *grouped_weight(weight.shape, tile)), 0, 3)
    )


def grouped_weight(shape: tuple[int, ...], tile: BottleneckTile) -> tuple[int, int, int, int]:
    """Return the extents by which weights of a kernel position lie: input channel, vector, thread, channel of the vector."""
    outputs, inputs = shape[:2]
    width = _vector_width(tile.channels)
    return inputs, tile.channels // width, outputs // tile.channels, width


def gpu_bottleneck(spec: FusedBottleneck, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a bottleneck.

    Its arguments are the data; for each of ``spec.convolutions`` the weight, as `pack_bottleneck_weight` orders it, or
    `pack_cell_weight` where it is 2x2 with stride 2, bias, inner slope, slope, residual and window as far as it has them,
    called ``expand_weight`` and so on; and ``spec.outputs``. Tensors are plain NCHW.
    """
    return bottleneck_kernel(spec, tile, BottleneckKernel, {"data": (spec.data_shape, "float32")})


def bottleneck_kernel(
    spec: FusedBottleneck, tile: BottleneckTile, kind: type[BottleneckKernel], first: Arguments
) -> tvm.tirx.PrimFunc:
    """Return the kernel that a `kind` of emitter makes, whose arguments are those of `gpu_bottleneck` after its first ones.

    Parameters
    ----------
    spec : FusedBottleneck
        What it computes.
    tile : BottleneckTile
        Pixels and channels of a thread, and threads of a block.
    kind : type
        The emitter, which says what shape the weights of a convolution have.
    first : dict
        Name -> (shape, dtype) of the arguments before the first weight.
    """
    arguments = dict(first)
    for name, part in spec.named.items():
        own = _tile_of(name, spec, tile)
        arguments[f"{name}_weight"] = (kind.weight_shape(part, own), "float32")
        more = epilogue_arguments(part, _group_tile(own))
        arguments |= {f"{name}_{key}": value for key, value in more.items()}
    arguments |= spec.outputs

    def body(*buffers: Any) -> None:
        kind(spec, tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def _vector_width(channels: int) -> int:
    """Return how many of a thread's weights one load moves."""
    return next(width for width in (VECTOR, 2, 1) if channels % width == 0)


def _tile_of(name: str, spec: FusedBottleneck, tile: BottleneckTile) -> BottleneckTile:
    """Return the tile with as many channels as a thread has of one of the convolutions."""
    return replace(tile, channels=channels_of(name, spec, tile))


def _group_tile(tile: BottleneckTile) -> GpuTile:
    """Return a tile with the same groups of channels, by which weights and vectors lie."""
    return GpuTile(tile.pixels, tile.channels, tile.lanes, 1)


def _is_of_cells(part: FusedConv2D) -> bool:
    """Whether each pixel of a convolution is computed of one cell of 2x2 pixels."""
    shape = (*part.kernel, *part.strides, *part.padding, *part.dilation)
    return not part.transposed and shape == (2, 2, 2, 2, 0, 0, 1, 1)


class BottleneckKernel:
    """Emits the kernel of a bottleneck; methods are its steps.

    Parameters
    ----------
    spec : FusedBottleneck
        What it computes.
    tile : BottleneckTile
        Pixels and channels of a thread, and threads of a block.
    buffers : dict
        The kernel's arguments by name.
    """

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        self.spec = spec
        self.tile = tile
        self.buffers = buffers
        self.pixels = PixelOrder(*spec.expand.out_shape[2:], tile.block_pixels, spec.in_cells)
        self.vector = plane_vector(spec)
        self.runs = cell_runs(spec, tile)
        self.narrowed = narrowed_together(spec, tile)
        self.first_rows, self.second_rows = shared_rows(spec, tile)
        self.epilogues = {
            name: Epilogue(part, {key.removeprefix(f"{name}_"): buffer for key, buffer in buffers.items()})
            for name, part in spec.named.items()
        }

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the weights of a convolution, of which a thread has as many channels as the tile."""
        *leading, width = grouped_weight((part.out_shape[1], part.data_shape[1]), tile)
        return (*leading, 4, width) if _is_of_cells(part) else (*part.kernel, *leading, width)

    def emit(self) -> None:
        """Emit the launch."""
        spec, tile = self.spec, self.tile
        blocks = (self.pixels.blocks, 1, spec.expand.out_shape[0])
        with for_threads(blocks, (tile.lanes, tile.rows)) as launch:
            self.begin(*launch)
            together = {name: self._zeros(channels) for name, channels in self.narrowed.items()}
            reduced = None if spec.reduce is None or together else self._zeros()
            with T.serial(spec.expand.out_shape[1] // tile.chunk, unroll=False) as turn:
                self._expand(turn)
                if spec.reduce is not None:
                    barrier()
                if together:
                    self._add_together(together, turn)
                elif spec.reduce is not None:
                    self._add_reduced(spec.reduce, reduced, turn)
            if together:
                self._finish_together(together)
            elif spec.reduce is not None and self.runs is not None:
                self._finish_cells(spec.reduce, reduced, self.runs)
            elif spec.reduce is not None:
                self._finish(spec.reduce, "reduce", reduced, self._keeping("reduced"))

    def begin(self, block: Any, _: Any, picture: Any, lane: Any, row: Any) -> None:
        """Emit what comes before `expand`, whose input is in the first part of the shared memory then."""
        self.block, self.picture, self.lane, self.row = block, picture, lane, row
        self.shared = shared((self.first_rows + self.second_rows, row_length(self.spec, self.tile)))
        if self.spec.conv is None:
            self._copy_inputs(self.spec.expand, 0, 0, 0)
        else:
            self._convolve(self.spec.conv)
        barrier()

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
            row, column, tests = self._place(part, own + start, kh, kw)
            with for_each(inputs // beside) as (step,):
                value = self.buffers["data"][self.picture, channel + step * beside, row, column]
                if tests:
                    value = tvm.tirx.if_then_else(both(*tests), value, T.float32(0))
                T.buffer_store(self.shared, value, [place + channel + step * beside, own + start])

    def _place(self, part: FusedConv2D, slot: Any, kh: Any, kw: Any) -> tuple[Any, Any, list[Any]]:
        """Return the row and column of the input that a pixel takes, and the tests that they are inside."""
        inside = self.pixels.inside(self.block, slot)
        tests = [] if inside is None else [inside]
        found = []
        for axis, (out, k) in enumerate(zip(self.pixels.place(self.block, slot), (kh, kw), strict=True)):
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
            if self.spec.kept:
                self._store(self.buffers["out"], values, channel)
            if self.spec.pooled:
                self._pool(values, channel)
            if self.runs is not None:
                self._store_cells(values, self.first_rows + self.row * tile.channels + c, self.runs)
            elif self.spec.reduce is not None:
                self._store_shared(values, self.first_rows + self.row * tile.channels + c)

    def _pool(self, values: Any, channel: Any) -> None:
        """Write the largest value of each cell of a thread's pixels of a channel, and its place in the cell."""
        half, across = self.tile.pixels // 2, self.vector // 2
        for start in range(0, half, self.vector):
            best, place = private((across,)), private((across,), "int32")
            with for_each(across) as (i,):
                T.buffer_store(best, values[start + 2 * i], [i])
                T.buffer_store(place, T.int32(0), [i])
                for position, other in enumerate((start + 1, start + half, start + half + 1), start=1):
                    # Strictly greater: the first maximum wins, as in PyTorch.
                    T.buffer_store(place, T.Select(values[other + 2 * i] > best[i], T.int32(position), place[i]), [i])
                    T.buffer_store(best, T.max(best[i], values[other + 2 * i]), [i])
            first = self.block * (self.tile.block_pixels // 4) + T.floordiv(self._pixel(start), 2)
            with if_all(self._inside(start)), for_vector(across) as e:
                at = [self.picture, channel, *self.pixels.cell_place(first + e)]
                T.buffer_store(self.buffers["pooled"], best[e], at)
                T.buffer_store(self.buffers["window"], T.cast(place[e], "uint8"), at)

    def _store_cells(self, values: Any, row: Any, runs: CellRuns) -> None:
        """Leave a thread's pixels of a channel in shared memory, each among those of its place in its cell."""
        half, across = self.tile.pixels // 2, self.vector // 2
        for start in range(0, self.tile.pixels, self.vector):
            below, first = divmod(start, half)
            for right in range(2):
                slot = runs.of_cell(2 * below + right, T.floordiv(self._pixel(first), 2))
                with for_vector(across) as e:
                    T.buffer_store(self.shared, values[start + right + 2 * e], [row, slot + e])

    def _add_reduced(self, reduce: FusedConv2D, acc: Any, turn: Any) -> None:
        """Add the products of those channels to the sums of `reduce`."""
        group, split, splits = self._share_of(reduce)
        inputs = self.tile.chunk // splits
        start = split * inputs
        rows, first = self.first_rows + start, turn * self.tile.chunk + start
        place = (0, 0) if self.runs is None else ()
        self._accumulate(acc, rows, "reduce", group, first, inputs, place, self.runs)

    def _keeping(self, output: str) -> Any:
        """Return what writes a channel of an output, for `_finish`."""
        return lambda values, channel, _count: self._store(self.buffers[output], values, channel)

    def _add_together(self, sums: dict[str, Any], turn: Any) -> None:
        """Add the products of those channels to the sums of `reduce` and `beside`."""
        tile = self.tile
        # As many threads share a tile of the one as of the other.
        group, split, splits = self._share_of(self.spec.named["reduce"], self.narrowed["reduce"])
        inputs = tile.chunk // splits
        unrolled = unrolled_inputs(tile, inputs, sum(self.narrowed.values()))
        with T.serial(inputs // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
            k = split * inputs + outer * unrolled + inner
            values = private((tile.pixels,))
            self._load_shared(values, self.first_rows + k)
            for name, acc in sums.items():
                weights = private((self.narrowed[name],))
                place = [0, 0, turn * tile.chunk + k]
                self._load_weights(weights, self.buffers[f"{name}_weight"], place, (group,), self.narrowed[name])
                with for_each(tile.pixels, self.narrowed[name]) as (i, c):
                    T.buffer_store(acc, acc[i, c] + values[i] * weights[c], [i, c])

    def _finish_together(self, sums: dict[str, Any]) -> None:
        """End the sums of `reduce` and `beside`, and write them."""
        for name, output in (("reduce", "reduced"), ("beside", "beside_out")):
            self._finish(self.spec.named[name], name, sums[name], self._keeping(output))

    def _share_of(self, part: FusedConv2D, channels: int | None = None) -> tuple[Any, Any, int]:
        """Return a thread's group of channels, its part of the input channels, and how many parts there are."""
        groups = part.out_shape[1] // (channels or self.tile.channels)
        splits = self.tile.rows // groups
        return (self.row, 0, 1) if splits == 1 else (T.floormod(self.row, groups), T.floordiv(self.row, groups), splits)

    def _zeros(self, channels: int | None = None) -> Any:
        shape = (self.tile.pixels, channels or self.tile.channels)
        acc = private(shape)
        with for_each(*shape) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        return acc

    def _accumulate(
        self,
        acc: Any,
        rows: Any,
        name: str,
        group: Any,
        start: Any,
        inputs: int,
        place: tuple[Any, ...] = (0, 0),
        runs: CellRuns | None = None,
    ) -> None:
        """Add the products of `inputs` channels, in shared memory from a row on, with the weights from `start` on.

        `place` is the position of the kernel. With `runs` the pixels lie in them, and have weights of their places in cells.
        """
        tile = self.tile
        unrolled = unrolled_inputs(tile, inputs)
        with T.serial(inputs // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
            k = outer * unrolled + inner
            weights, values = private((tile.channels,)), private((tile.pixels,))
            of_thread = (group,) if runs is None else (group, runs.position(self.lane))
            self._load_weights(weights, self.buffers[f"{name}_weight"], [*place, start + k], of_thread)
            self._load_values(name, values, rows + k, runs)
            with for_each(tile.pixels, tile.channels) as (i, c):
                T.buffer_store(acc, acc[i, c] + values[i] * weights[c], [i, c])

    def _load_values(self, _name: str, values: Any, row: Any, runs: CellRuns | None) -> None:
        """Load what a convolution multiplies of a channel for a thread's pixels."""
        self._load_shared(values, row, runs)

    def _load_weights(
        self, weights: Any, packed: Any, leading: list[Any], of_thread: tuple[Any, ...], channels: int | None = None
    ) -> None:
        """Load the weights of a group of channels, by default as many as a tile has, and one input channel."""
        channels = channels or self.tile.channels
        width = _vector_width(channels)
        for vector in range(channels // width):
            with for_vector(width) as c:
                T.buffer_store(weights, packed[(*leading, vector, *of_thread, c)], [vector * width + c])

    def _finish_cells(self, part: FusedConv2D, acc: Any, runs: CellRuns) -> None:
        """End the sums of a 2x2 convolution with stride 2, added up over the places of each cell, and write them."""
        tile, cells = self.tile, self.tile.pixels // 4
        group, split, splits = self._share_of(part)
        share, channels, parts = tile.channels // splits, part.out_shape[1], self.first_rows
        barrier()  # Until all have read what lies there.
        with for_each(tile.channels) as (c,):
            row = parts + split * channels + group * tile.channels + c
            for start in range(0, tile.pixels, self.vector):
                with for_vector(self.vector) as e:
                    T.buffer_store(self.shared, acc[start + e, c], [row, runs.of_thread(start, self.lane) + e])
        barrier()
        first = self.block * (tile.block_pixels // 4) + self.lane * cells
        inside = None if self.pixels.inside(0, 0) is None else first < self.pixels.height * self.pixels.width // 4
        with for_each(share) as (c,):
            channel = group * tile.channels + split * share + c
            total = private((cells,))
            for number in range(4 * splits):
                other, position = divmod(number, 4)
                more, slot = private((cells,)), runs.of_cell(position, self.lane * cells)
                with for_vector(cells) as e:
                    T.buffer_store(more, self.shared[parts + other * channels + channel, slot + e], [e])
                with for_each(cells) as (i,):
                    T.buffer_store(total, total[i] + more[i] if number else more[i], [i])
            values = self._ended("reduce", lambda i, of=total: of[i], channel, cells)
            with if_all(inside), for_vector(cells) as e:
                T.buffer_store(self.buffers["reduced"], values[e], [self.picture, channel, *self.pixels.cell_place(first + e)])

    def _finish(self, part: FusedConv2D, name: str, acc: Any, keep: Any) -> None:
        """End the sums of a convolution, added up where threads share them, and hand them to `keep` channel by channel."""
        tile, own = self.tile, self.narrowed.get(name, self.tile.channels)
        group, split, splits = self._share_of(part, own)
        share = own // splits
        channels, parts = part.out_shape[1], self.first_rows
        if splits > 1:
            barrier()  # Until all have read what lies there.
            with for_each(own) as (c,):
                values = private((tile.pixels,))
                with for_each(tile.pixels) as (i,):
                    T.buffer_store(values, acc[i, c], [i])
                self._store_shared(values, parts + split * channels + group * own + c)
            barrier()
        with for_each(share) as (c,):
            channel = group * own + split * share + c
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

    def _ended(self, name: str, value_of: Any, channel: Any, count: int | None = None) -> Any:
        """Return the final values of a thread's pixels of a channel, or of `count` others that no shortcut is added to."""
        epilogue, attrs = self.epilogues[name], self.epilogues[name].attrs
        epilogue.load(channel)
        count = count or self.tile.pixels
        values = private((count,))
        shortcuts = None if attrs.residual == "none" else self._shortcuts(epilogue, channel)
        with for_each(count) as (i,):
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
            with if_all(known, self._inside(start)):
                if attrs.residual == "unpool":
                    row, column = self.pixels.place(self.block, self._pixel(start))
                    T.buffer_store(values, epilogue.shortcut(self.picture, channel, row, column), [start])
                else:
                    with for_vector(self.vector) as e:
                        T.buffer_store(values, residual[self._at(channel, start, e)], [start + e])
        return values

    def _store(self, target: Any, values: Any, channel: Any) -> None:
        """Write a thread's pixels of a channel."""
        for start in range(0, self.tile.pixels, self.vector):
            with if_all(self._inside(start)), for_vector(self.vector) as e:
                T.buffer_store(target, values[start + e], list(self._at(channel, start, e)))

    def _load_shared(self, values: Any, row: Any, runs: CellRuns | None = None) -> None:
        for start in range(0, self.tile.pixels, self.vector):
            slot = self._pixel(start) if runs is None else runs.of_thread(start, self.lane)
            with for_vector(self.vector) as e:
                T.buffer_store(values, self.shared[row, slot + e], [start + e])

    def _store_shared(self, values: Any, row: Any) -> None:
        for start in range(0, self.tile.pixels, self.vector):
            with for_vector(self.vector) as e:
                T.buffer_store(self.shared, values[start + e], [row, self._pixel(start) + e])

    def _pixel(self, start: int) -> Any:
        """Return which slot of the block a thread's pixel `start` is, the first of a vector."""
        return start * self.tile.lanes + self.lane * self.vector

    def _inside(self, start: int) -> Any:
        return self.pixels.inside(self.block, self._pixel(start))

    def _at(self, channel: Any, start: int, beside: Any) -> tuple[Any, Any, Any, Any]:
        return (self.picture, channel, *self.pixels.place(self.block, self._pixel(start), beside))
