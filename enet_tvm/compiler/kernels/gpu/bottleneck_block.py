"""A block of threads in a bottleneck's kernel: its pixels, its shared memory, and how both are filled and emptied.

A thread's pixels are neighbours by vectors, and those of neighbouring threads follow them: loads and stores are whole sectors,
and no two lanes of a quarter of a warp need the same bank of shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns, PixelOrder
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, cell_runs, plane_vector, row_length, shared_rows
from enet_tvm.compiler.kernels.gpu.building import both, for_each, for_vector, if_all, shared
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D


class BottleneckBlock:
    """Emits what a block copies into its shared memory, and its threads load from there and store.

    What there is of a value in shared memory is a word of it.

    Parameters
    ----------
    spec : FusedBottleneck
        What the kernel computes.
    tile : BottleneckTile
        Pixels and channels of a thread, and threads of a block.
    buffers : dict
        The kernel's arguments by name.

    Attributes
    ----------
    word : int
        Channels of a word: one, or more where a kind of kernel that is derived from this one has them.
    """

    word: ClassVar[int] = 1

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        self.spec = spec
        self.tile = tile
        self.buffers = buffers
        self.pixels = PixelOrder(*spec.expand.out_shape[2:], tile.block_pixels, spec.in_cells)
        self.own, self.vector = tile.pixels, plane_vector(spec)
        self.runs = cell_runs(spec, tile)
        self.first_rows, self.second_rows = self.shared_rows(spec, tile)

    @staticmethod
    def shared_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
        """Return the rows of words of both parts of the shared memory."""
        return shared_rows(spec, tile)

    def start(self, block: Any, _: Any, picture: Any, lane: Any, row: Any) -> None:
        """Take the indices of a launch, and emit the shared memory."""
        self.block, self.picture, self.lane, self.row = block, picture, lane, row
        self.shared = self._words(self.first_rows + self.second_rows, row_length(self.spec, self.tile))

    def _words(self, rows: int, length: int) -> Any:
        """Return the shared memory."""
        return shared((rows, length))

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

    def _pixel(self, start: int) -> Any:
        """Return which slot of the block a thread's pixel `start` is, the first of a vector."""
        return start * self.tile.lanes + self.lane * self.vector

    def _inside(self, start: int) -> Any:
        return self.pixels.inside(self.block, self._pixel(start))

    def _at(self, channel: Any, start: int, beside: Any) -> tuple[Any, Any, Any, Any]:
        return (self.picture, channel, *self.pixels.place(self.block, self._pixel(start), beside))

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

    def _store(self, target: Any, values: Any, channel: Any) -> None:
        """Write a thread's pixels of a channel."""
        for start in range(0, self.own, self.vector):
            with if_all(self._inside(start)), for_vector(self.vector) as e:
                T.buffer_store(target, values[start + e], list(self._at(channel, start, e)))
