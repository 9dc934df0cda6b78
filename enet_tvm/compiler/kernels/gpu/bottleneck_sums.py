"""A thread's sums in a bottleneck's kernel: products added to them, and what ends them: bias, activation and shortcut.

Where several threads share a tile of a convolution, each sums a part of its input channels, and they add their sums up in
shared memory. A convolution of 2x2 with stride 2 is summed by the places of its pixels in their cells, and the four sums of a
cell are added up there likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.gpu.bottleneck_block import BottleneckBlock
from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, narrowed_together, unrolled_inputs
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import vector_width
from enet_tvm.compiler.kernels.gpu.building import barrier, for_each, for_vector, if_all, private
from enet_tvm.compiler.kernels.gpu.conv2d import Epilogue
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D


class BottleneckSums(BottleneckBlock):
    """Emits the loops that sum the products of a convolution, and what is done with a sum at its end."""

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        super().__init__(spec, tile, buffers)
        self.narrowed = narrowed_together(spec, tile)
        self.epilogues = {
            name: Epilogue(part, {key.removeprefix(f"{name}_"): buffer for key, buffer in buffers.items()})
            for name, part in spec.named.items()
        }

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

    def _add_together(self, sums: dict[str, Any], turn: Any) -> None:
        """Add the products of the channels of `expand` of a turn to the sums of `reduce` and `beside`."""
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

    def _load_values(self, _name: str, values: Any, row: Any, runs: CellRuns | None) -> None:
        """Load what a convolution multiplies of a channel for a thread's pixels."""
        self._load_shared(values, row, runs)

    def _load_weights(
        self, weights: Any, packed: Any, leading: list[Any], of_thread: tuple[Any, ...], channels: int | None = None
    ) -> None:
        """Load the weights of a group of channels, by default as many as a tile has, and one input channel."""
        channels = channels or self.tile.channels
        width = vector_width(channels)
        for vector in range(channels // width):
            with for_vector(width) as c:
                T.buffer_store(weights, packed[(*leading, vector, *of_thread, c)], [vector * width + c])

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
