"""The end of a bottleneck that upsamples and the beginning of the next in one kernel: it begins with a transposed convolution.

A block has whole cells of 2x2 pixels, each of which comes of one input pixel and its neighbours. A thread sums pixels of one of
the four places in a cell, which have weights of their own. Each reads the same window of the input around its cell; where the
kernel has no weight for an input pixel, it is 0. What is multiplied for nothing costs less than the transposed convolution
written and read, and the other convolutions are computed as in any bottleneck.

Unpooling stays within a cell as well: a thread with whole cells loads a value and its window index once for four pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel, bottleneck_kernel, bottleneck_operands
from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, bottleneck_tiles, doubling_runs
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import grouped_weight, pack_bottleneck_weight
from enet_tvm.compiler.kernels.gpu.building import barrier, both, for_each, for_vector, if_all, private
from enet_tvm.compiler.kernels.gpu.conv2d import Epilogue
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes

_LARGEST_WINDOW = 4
"""Input pixels that a cell may take: more would mostly be multiplied by 0."""


@dataclass(frozen=True)
class GpuUpsamplingBottleneckTemplate(GpuBottleneckTemplate):
    """The end of a bottleneck that upsamples and the beginning of the next on a GPU."""

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether a transposed convolution that doubles height and width comes first, and everything is plain NCHW."""
        conv, expand, reduce = spec.conv, spec.expand, spec.reduce
        if conv is None or not conv.doubles or conv.residual != "none" or spec.beside is not None or spec.pooled:
            return False
        parts = spec.convolutions
        if any({part.data_layout, part.out_layout, part.residual_layout} != {PLANAR} or part.argmax for part in parts):
            return False
        narrows = reduce is None or (reduce.is_pointwise and reduce.residual == "none")
        fits = expand.is_pointwise and narrows and len(Window.of(conv).places) <= _LARGEST_WINDOW
        return fits and bool(bottleneck_tiles(spec, unit))

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_upsampling_bottleneck(self.spec, point)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the data, then the packed weight, bias, slopes and shortcut of one convolution after the other."""
        return bottleneck_operands(self.spec, point, arguments, _Upsampling)


@dataclass(frozen=True)
class Window:
    """The input pixels around a cell's own that a transposed convolution takes.

    Attributes
    ----------
    rows, columns : range
        How far they are from it.
    """

    rows: range
    columns: range

    @classmethod
    def of(cls, part: FusedConv2D) -> Window:
        """Return the window of a transposed convolution that doubles height and width."""
        offsets = [(dy, dx) for _, _, dy, dx in transposed_taps(part)]
        rows, columns = zip(*offsets, strict=True)
        return cls(*(range(min(side), max(side) + 1) for side in (rows, columns)))

    @property
    def places(self) -> list[tuple[int, int]]:
        """All of them, row by row."""
        return [(row, column) for row in self.rows for column in self.columns]


def pack_doubling_weight(weight: np.ndarray, part: FusedConv2D, tile: BottleneckTile) -> np.ndarray:
    """Return weights (IC x OC x KH x KW) by the places of a cell.

    They lie as window row and column, input channel, vector of a thread, thread, place in a cell, channel of the vector; 0
    where the place takes nothing of that pixel.
    """
    inputs, outputs, _, columns = weight.shape
    window = Window.of(part)
    full = np.zeros((4, outputs, inputs, len(window.rows), len(window.columns)), weight.dtype)
    for (a, b), tap, dy, dx in transposed_taps(part):
        at = window.rows.index(dy), window.columns.index(dx)
        full[(2 * a + b, slice(None), slice(None), *at)] = weight[:, :, tap // columns, tap % columns].T
    return np.stack([pack_bottleneck_weight(each, tile) for each in full], axis=-2)


def gpu_upsampling_bottleneck(spec: FusedBottleneck, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel; its arguments are those of `gpu_bottleneck`, the first weight as `pack_doubling_weight` orders it."""
    return bottleneck_kernel(spec, tile, _Upsampling)


class _Upsampling(BottleneckKernel):
    """The kernel of a bottleneck whose first convolution is transposed; its result lies by the places in cells."""

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        super().__init__(spec, tile, buffers)
        self.cells: CellRuns = doubling_runs(spec, tile)

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the weights of a convolution, of which a thread has as many channels as the tile."""
        if not part.transposed:
            return super().weight_shape(part, tile)
        window, (*leading, width) = Window.of(part), grouped_weight((part.out_shape[1], part.data_shape[1]), tile)
        return (len(window.rows), len(window.columns), *leading, 4, width)

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution, of which a thread has as many channels as the tile, as the kernel takes it."""
        return pack_doubling_weight(weight, part, tile) if part.transposed else super().packed_weight(part, weight, tile)

    def _convolve(self, conv: FusedConv2D) -> None:
        """Leave the result of the transposed convolution in the first part of the shared memory."""
        window = Window.of(conv)
        group, split, splits = self._share_of(conv)
        inputs, positions = conv.data_shape[1] // splits, len(window.places)
        acc = self._zeros("conv")
        with T.serial(len(window.rows), unroll=False) as kh, T.serial(len(window.columns), unroll=False) as kw:
            # As in any bottleneck, the two parts take turns, and the last turn is that of the second.
            place = T.floormod(positions - (kh * len(window.columns) + kw), 2) * self.first_rows
            self._copy_sources(conv, window.rows[0] + kh, window.columns[0] + kw, place, window)
            barrier()
            rows = place + split * inputs
            self._accumulate(acc, rows, "conv", group, split * inputs, inputs, (kh, kw), self.cells)

        def keep(values: list[Any], _channels: list[Any], row: Any) -> None:
            for start in range(0, self.tile.pixels, self.vector):
                with for_vector(self.vector) as e:
                    at = [row, self.cells.of_thread(start, self.lane) + e]
                    T.buffer_store(self.shared, values[0][start + e], at)

        self._finish(conv, "conv", acc, keep)

    def _copy_sources(self, conv: FusedConv2D, dy: Any, dx: Any, place: Any, window: Window) -> None:
        """Copy the input pixels that are so far from those of the block's cells into rows from `place` on."""
        tile, cells = self.tile, self.tile.block_pixels // 4
        inputs, height, width = conv.data_shape[1:]
        thread = self.row * tile.lanes + self.lane
        beside = max(1, tile.threads // cells)
        own, channel = (thread, 0) if beside == 1 else (T.floormod(thread, cells), T.floordiv(thread, cells))
        for start in range(0, cells, min(tile.threads, cells)):
            cell = self.block * cells + own + start
            tests = [] if self.pixels.inside(0, 0) is None else [cell < height * width]
            at = []
            for side, offset, extent, reach in zip(
                self.pixels.cell_place(cell), (dy, dx), (height, width), (window.rows, window.columns), strict=True
            ):
                at.append(side + offset)
                tests += [side + offset >= 0] if reach[0] < 0 else []
                tests += [side + offset < extent] if reach[-1] > 0 else []
            with for_each(inputs // beside) as (step,):
                value = self.buffers["data"][self.picture, channel + step * beside, at[0], at[1]]
                if tests:
                    value = tvm.tirx.if_then_else(both(*tests), value, T.float32(0))
                T.buffer_store(self.shared, value, [place + channel + step * beside, own + start])

    def _load_values(self, name: str, values: Any, row: Any, runs: CellRuns | None) -> None:
        """Load a thread's pixels of a channel: for `conv` those of its cells' windows, for `expand` what `conv` left."""
        if name == "conv":
            lane = T.floormod(self.lane, self.tile.lanes // 4)
            for start in range(0, self.tile.pixels, self.vector):
                slot = start // self.vector * self.cells.run + lane * self.vector
                with for_vector(self.vector) as e:
                    T.buffer_store(values, self.shared[row, slot + e], [start + e])
        elif name == "expand":
            self._load_cells(values, row)
        else:
            super()._load_values(name, values, row, runs)

    def _load_cells(self, values: Any, row: Any) -> None:
        """Load a thread's pixels of a channel, each from among those of its place in its cell."""
        half, across = self.tile.pixels // 2, self.vector // 2
        for start in range(0, self.tile.pixels, self.vector):
            below, first = divmod(start, half)
            for right in range(2):
                some = private((across,))
                slot = self.cells.of_cell(2 * below + right, T.floordiv(self._pixel(first), 2))
                with for_vector(across) as e:
                    T.buffer_store(some, self.shared[row, slot + e], [e])
                with for_each(across) as (i,):
                    T.buffer_store(values, some[i], [start + right + 2 * i])

    def _shortcuts(self, epilogue: Epilogue, channel: Any) -> Any:
        """Return what the shortcut adds to a thread's pixels of a channel; 0 outside the picture."""
        if epilogue.attrs.residual != "unpool":
            return super()._shortcuts(epilogue, channel)
        half, across = self.tile.pixels // 2, self.vector // 2
        values = private((self.tile.pixels,))
        with for_each(self.tile.pixels) as (i,):
            T.buffer_store(values, T.float32(0), [i])
        for start in range(0, half, self.vector):
            maxima, places = private((across,)), private((across,), "int32")
            first = self.block * (self.tile.block_pixels // 4) + T.floordiv(self._pixel(start), 2)
            with if_all(self._inside(start)):
                with for_vector(across) as e:
                    at = (self.picture, channel, *self.pixels.cell_place(first + e))
                    T.buffer_store(maxima, epilogue.buffers["residual"][at], [e])
                    T.buffer_store(places, T.cast(epilogue.buffers["window"][at], "int32"), [e])
                with for_each(across) as (i,):
                    for place in range(4):
                        value = T.Select(places[i] == place, maxima[i], T.float32(0))
                        T.buffer_store(values, value, [start + place // 2 * half + place % 2 + 2 * i])
        return values
