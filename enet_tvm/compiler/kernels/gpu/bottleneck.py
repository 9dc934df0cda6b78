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

from collections.abc import Callable, Sequence
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
        return bottleneck_operands(self.spec, point, arguments, BottleneckKernel)

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
    return bottleneck_kernel(spec, tile, BottleneckKernel)


def bottleneck_kernel(
    spec: FusedBottleneck, tile: BottleneckTile, kind: type[BottleneckKernel], first: Arguments | None = None
) -> tvm.tirx.PrimFunc:
    """Return the kernel that a `kind` of emitter makes, whose arguments are those of `gpu_bottleneck` after its first ones.

    Parameters
    ----------
    spec : FusedBottleneck
        What it computes.
    tile : BottleneckTile
        Pixels and channels of a thread, and threads of a block.
    kind : type
        The emitter, which says what shape and type the weights of a convolution have.
    first : dict, optional
        Name -> (shape, dtype) of the arguments before the first weight; by default the data alone.
    """
    arguments = dict(first or {"data": (spec.data_shape, "float32")})
    for name, part in spec.named.items():
        own = _tile_of(name, spec, tile)
        arguments[f"{name}_weight"] = (kind.weight_shape(part, own), kind.weight_dtype)
        more = epilogue_arguments(part, group_tile(own))
        arguments |= {f"{name}_{key}": value for key, value in more.items()}
    arguments |= spec.outputs

    def body(*buffers: Any) -> None:
        kind(spec, tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def bottleneck_operands(
    spec: FusedBottleneck, tile: BottleneckTile, arguments: Sequence[relax.Expr], kind: type[BottleneckKernel]
) -> list[relax.Expr]:
    """Return the data, then the packed weight, bias, slopes and shortcut of one convolution after the other."""
    operands: list[relax.Expr] = [arguments[0]]
    for (name, part), of_part in zip(spec.named.items(), spec.split(arguments), strict=True):
        given, own = ConvolutionArguments.of(part, of_part), _tile_of(name, spec, tile)
        operands += gpu_operands(given, kind.packed_weight(part, given.weight, own), group_tile(own))[1:]
    return operands


def _vector_width(channels: int) -> int:
    """Return how many of a thread's weights one load moves."""
    return next(width for width in (VECTOR, 2, 1) if channels % width == 0)


def _tile_of(name: str, spec: FusedBottleneck, tile: BottleneckTile) -> BottleneckTile:
    """Return the tile with as many channels as a thread has of one of the convolutions."""
    return replace(tile, channels=channels_of(name, spec, tile))


def group_tile(tile: BottleneckTile) -> GpuTile:
    """Return a tile with the same groups of channels, by which weights and vectors lie."""
    return GpuTile(tile.pixels, tile.channels, tile.lanes, 1)


def _is_of_cells(part: FusedConv2D) -> bool:
    """Whether each pixel of a convolution is computed of one cell of 2x2 pixels."""
    shape = (*part.kernel, *part.strides, *part.padding, *part.dilation)
    return not part.transposed and shape == (2, 2, 2, 2, 0, 0, 1, 1)


class BottleneckKernel:
    """Emits the kernel of a bottleneck; methods are its steps. What there is of a value in shared memory is a word of it.

    Parameters
    ----------
    spec : FusedBottleneck
        What it computes.
    tile : BottleneckTile
        Pixels and channels of a thread, and threads of a block.
    buffers : dict
        The kernel's arguments by name.

    Attributes
    ----------
    word : int
        Channels of a word: one, or more where a kind of kernel that is derived from this one has them.
    weight_dtype : str
        Type of the elements of the packed weights.
    """

    word: ClassVar[int] = 1
    weight_dtype: ClassVar[str] = "float32"

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        self.spec = spec
        self.tile = tile
        self.buffers = buffers
        self.pixels = PixelOrder(*spec.expand.out_shape[2:], tile.block_pixels, spec.in_cells)
        self.own, self.vector = tile.pixels, plane_vector(spec)
        self.runs = cell_runs(spec, tile)
        self.narrowed = narrowed_together(spec, tile)
        self.first_rows, self.second_rows = self.shared_rows(spec, tile)
        self.epilogues = {
            name: Epilogue(part, {key.removeprefix(f"{name}_"): buffer for key, buffer in buffers.items()})
            for name, part in spec.named.items()
        }

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the weights of a convolution, of which a thread has as many channels as the tile."""
        *leading, width = grouped_weight((part.out_shape[1], part.data_shape[1]), tile)
        return (*leading, 4, width) if _is_of_cells(part) else (*part.kernel, *leading, width)

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution (OC x IC x KH x KW) as the kernel takes it."""
        return (pack_cell_weight if _is_of_cells(part) else pack_bottleneck_weight)(weight, tile)

    @staticmethod
    def shared_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
        """Return the rows of words of both parts of the shared memory."""
        return shared_rows(spec, tile)

    def emit(self) -> None:
        """Emit the launch."""
        spec, tile = self.spec, self.tile
        blocks = (self.pixels.blocks, 1, spec.expand.out_shape[0])
        with for_threads(blocks, (tile.lanes, tile.rows)) as launch:
            self.begin(*launch)
            together = {name: self._zeros(name) for name in self.narrowed}
            reduced = None if spec.reduce is None or together else self._zeros("reduce")
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

    def start(self, block: Any, _: Any, picture: Any, lane: Any, row: Any) -> None:
        """Take the indices of a launch, and emit the shared memory."""
        self.block, self.picture, self.lane, self.row = block, picture, lane, row
        self.shared = self._words(self.first_rows + self.second_rows, row_length(self.spec, self.tile))

    def begin(self, *launch: Any) -> None:
        """Emit what comes before `expand`, whose input is in the first part of the shared memory then."""
        self.start(*launch)
        if self.spec.conv is None:
            self._copy_inputs(self.spec.expand, 0, 0, 0)
        else:
            self._convolve(self.spec.conv)
        barrier()

    def _words(self, rows: int, length: int) -> Any:
        """Return the shared memory."""
        return shared((rows, length))

    def _convolve(self, conv: FusedConv2D) -> None:
        """Leave the result of `conv` in the first part of the shared memory."""
        positions = conv.kernel[0] * conv.kernel[1]
        group, split, splits = self._share_of(conv)
        inputs = conv.data_shape[1] // splits
        acc = self._zeros("conv")
        with T.serial(conv.kernel[0], unroll=False) as kh, T.serial(conv.kernel[1], unroll=False) as kw:
            # The two parts take turns, so that one barrier is enough, and the last turn is that of the second.
            place = T.floormod(positions - (kh * conv.kernel[1] + kw), 2) * self.first_rows
            self._copy_inputs(conv, kh, kw, place)
            barrier()
            rows = place + split * (inputs // self.word)
            self._accumulate(acc, rows, "conv", group, split * inputs, inputs, (kh, kw))
        self._finish(conv, "conv", acc, self._keep_convolved)

    def _keep_convolved(self, values: list[Any], _channels: list[Any], row: Any) -> None:
        """Keep channels of the result of `conv`, which are those of a word."""
        self._store_shared(values, row)

    def _copy_inputs(self, part: FusedConv2D, kh: Any, kw: Any, place: Any) -> None:
        """Copy what the pixels of the block take at a position of the kernel into rows from `place` on."""
        tile, words = self.tile, part.data_shape[1] // self.word
        thread = self.row * tile.lanes + self.lane
        beside = max(1, tile.threads // tile.block_pixels)
        own, word = (
            (thread, 0) if beside == 1 else (T.floormod(thread, tile.block_pixels), T.floordiv(thread, tile.block_pixels))
        )
        for start in range(0, tile.block_pixels, min(tile.threads, tile.block_pixels)):
            row, column, tests = self._place(part, own + start, kh, kw)
            with for_each(words // beside) as (step,):
                value = self._input(word + step * beside, row, column)
                if tests:
                    value = tvm.tirx.if_then_else(both(*tests), value, self._nothing())
                self._keep_input(value, place + word + step * beside, own + start)

    def _input(self, word: Any, row: Any, column: Any) -> Any:
        """Return a word of the input."""
        return self.buffers["data"][self.picture, word, row, column]

    def _keep_input(self, value: Any, row: Any, slot: Any) -> None:
        """Store a word of the input."""
        T.buffer_store(self.shared, value, [row, slot])

    def _nothing(self) -> Any:
        """Return a word of zeros."""
        return T.float32(0)

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
        acc = self._zeros("expand")
        group = turn * tile.rows + self.row
        self._accumulate(acc, 0, "expand", group, 0, inputs)
        if self.spec.reduce is not None:
            barrier()  # Until all have read the channels of the turn before.
        count = self.word
        with for_each(tile.channels // count) as (word,):
            channel = group * tile.channels + word * count
            values = [self._ended("expand", lambda i, at=word * count + k: acc[i, at], channel + k) for k in range(count)]
            for k, of_channel in enumerate(values):
                if self.spec.kept:
                    self._store(self.buffers["out"], of_channel, channel + k)
                if self.spec.pooled:
                    self._pool(of_channel, channel + k)
            row = self.first_rows + self.row * (tile.channels // count) + word
            if self.runs is not None:
                self._store_cells(values, row, self.runs)
            elif self.spec.reduce is not None:
                self._store_shared(values, row)

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

    def _store_cells(self, values: list[Any], row: Any, runs: CellRuns) -> None:
        """Leave a thread's pixels of the channels of a word in shared memory, each among those of its place in its cell."""
        half, across = self.tile.pixels // 2, self.vector // 2
        words = self._packed(values)
        for start in range(0, self.tile.pixels, self.vector):
            below, first = divmod(start, half)
            for right in range(2):
                slot = runs.of_cell(2 * below + right, T.floordiv(self._pixel(first), 2))
                with for_vector(across) as e:
                    T.buffer_store(self.shared, words[start + right + 2 * e], [row, slot + e])

    def _add_reduced(self, reduce: FusedConv2D, acc: Any, turn: Any) -> None:
        """Add the products of those channels to the sums of `reduce`."""
        group, split, splits = self._share_of(reduce)
        inputs = self.tile.chunk // splits
        start = split * inputs
        rows, first = self.first_rows + split * (inputs // self.word), turn * self.tile.chunk + start
        place = (0, 0) if self.runs is None else ()
        self._accumulate(acc, rows, "reduce", group, first, inputs, place, self.runs)

    def _keeping(self, output: str) -> Callable[[list[Any], list[Any], Any], None]:
        """Return what writes channels of an output, for `_finish`."""

        def keep(values: list[Any], channels: list[Any], _row: Any) -> None:
            for of_channel, channel in zip(values, channels, strict=True):
                self._store(self.buffers[output], of_channel, channel)

        return keep

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

    def _zeros(self, name: str) -> Any:
        shape = (self.tile.pixels, self.narrowed.get(name, self.tile.channels))
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
            words = self._sum_words(acc, c)
            for start in range(0, tile.pixels, self.vector):
                with for_vector(self.vector) as e:
                    T.buffer_store(self.shared, words(start + e), [row, runs.of_thread(start, self.lane) + e])
        barrier()
        first = self.block * (tile.block_pixels // 4) + self.lane * cells
        inside = None if self.pixels.inside(0, 0) is None else first < self.pixels.height * self.pixels.width // 4
        with for_each(share) as (c,):
            channel = group * tile.channels + split * share + c
            total = private((cells,))
            for number in range(4 * splits):
                other, position = divmod(number, 4)
                more, slot = private((cells,)), runs.of_cell(position, self.lane * cells)
                self._load_sums(more, 0, cells, parts + other * channels + channel, slot)
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
                self._store_parts(values, parts + split * channels + group * own + c)
            barrier()
        # What is written is no word: only what is kept goes by words of channels.
        count = self.word if name == "conv" else 1
        with for_each(share // count) as (word,):
            channel = group * own + split * share + word * count
            values = [
                self._ended(name, self._total(acc, word * count + k, channel + k, splits, channels), channel + k)
                for k in range(count)
            ]
            row = group * (own // count) + split * (share // count) + word
            keep(values, [channel + k for k in range(count)], row)

    def _total(self, acc: Any, c: Any, channel: Any, splits: int, channels: int) -> Callable[[Any], Any]:
        """Return the sums of a thread's pixels of its channel `c`, added up over the threads that share them."""
        if splits == 1:
            return lambda i: acc[i, c]
        total, parts = private((self.tile.pixels,)), self.first_rows
        self._load_parts(total, parts + channel)
        for other in range(1, splits):
            more = private((self.tile.pixels,))
            self._load_parts(more, parts + other * channels + channel)
            with for_each(self.tile.pixels) as (i,):
                T.buffer_store(total, total[i] + more[i], [i])
        return lambda i: total[i]

    def _ended(self, name: str, value_of: Any, channel: Any, count: int | None = None) -> Any:
        """Return the final values of a thread's pixels of a channel, or of `count` others that no shortcut is added to."""
        epilogue, attrs = self.epilogues[name], self.epilogues[name].attrs
        epilogue.load(channel)
        count = count or self.own
        values = private((count,))
        shortcuts = None if attrs.residual == "none" else self._shortcuts(epilogue, channel)
        with for_each(count) as (i,):
            shortcut = None if shortcuts is None else shortcuts[i]
            T.buffer_store(values, epilogue.ended(value_of(i), shortcut), [i])
        return values

    def _shortcuts(self, epilogue: Epilogue, channel: Any) -> Any:
        """Return what the shortcut adds to a thread's pixels of a channel; 0 outside the picture."""
        attrs, residual = epilogue.attrs, epilogue.buffers["residual"]
        values = private((self.own,))
        with for_each(self.own) as (i,):
            T.buffer_store(values, T.float32(0), [i])
        known = channel < attrs.residual_channels if attrs.residual == "pad" else None
        for start in range(0, self.own, self.vector):
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
        for start in range(0, self.own, self.vector):
            with if_all(self._inside(start)), for_vector(self.vector) as e:
                T.buffer_store(target, values[start + e], list(self._at(channel, start, e)))

    def _load_shared(self, values: Any, row: Any, runs: CellRuns | None = None) -> None:
        for start in range(0, self.tile.pixels, self.vector):
            slot = self._pixel(start) if runs is None else runs.of_thread(start, self.lane)
            with for_vector(self.vector) as e:
                T.buffer_store(values, self.shared[row, slot + e], [start + e])

    def _store_shared(self, values: list[Any], row: Any) -> None:
        """Leave a thread's pixels of the channels of a word in shared memory."""
        words = self._packed(values)
        for start in range(0, self.tile.pixels, self.vector):
            with for_vector(self.vector) as e:
                T.buffer_store(self.shared, words[start + e], [row, self._pixel(start) + e])

    def _packed(self, values: list[Any]) -> Any:
        """Return the words of a thread's pixels of some channels, which may be more than one."""
        return values[0]

    def _store_parts(self, values: Any, row: Any) -> None:
        """Leave what a thread has summed of a channel, for those that it shares the sum with."""
        words = self._sum_words(values)
        for start in range(0, self.tile.pixels, self.vector):
            with for_vector(self.vector) as e:
                T.buffer_store(self.shared, words(start + e), [row, self._pixel(start) + e])

    def _load_parts(self, values: Any, row: Any) -> None:
        """Load what a thread has summed."""
        for start in range(0, self.tile.pixels, self.vector):
            self._load_sums(values, start, self.vector, row, self._pixel(start))

    def _load_sums(self, values: Any, start: int, count: int, row: Any, slot: Any) -> None:
        """Load some sums that lie side by side, from `slot` of a row on."""
        with for_vector(count) as e:
            T.buffer_store(values, self.shared[row, slot + e], [start + e])

    def _sum_words(self, sums: Any, *channel: Any) -> Callable[[Any], Any]:
        """Return what says the word for a thread's sum of a pixel, of one of its channels where they are of several."""
        return lambda i: sums[(i, *channel)]

    def _pixel(self, start: int) -> Any:
        """Return which slot of the block a thread's pixel `start` is, the first of a vector."""
        return start * self.tile.lanes + self.lane * self.vector

    def _inside(self, start: int) -> Any:
        return self.pixels.inside(self.block, self._pixel(start))

    def _at(self, channel: Any, start: int, beside: Any) -> tuple[Any, Any, Any, Any]:
        return (self.picture, channel, *self.pixels.place(self.block, self._pixel(start), beside))
