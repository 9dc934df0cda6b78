"""Bottlenecks in one kernel that multiply and add pairs of float16, for GPUs that do so at twice their rate of float32.

It is the kernel of `enet_tvm.compiler.kernels.gpu.bottleneck_kernel` with words of two channels in shared memory, and weights
of two output channels in a word. A product is of an input channel of a pixel, twice, and two output channels: the sums of two
neighbouring channels are a pair too. After at most 32 products such a sum is added to one of float32, in which everything else
is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel, bottleneck_kernel, bottleneck_operands
from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import (
    BottleneckTile,
    cell_runs,
    narrowed_together,
    shared_rows,
    together_splits,
    unrolled_inputs,
)
from enet_tvm.compiler.kernels.gpu.building import for_each, for_vector, private, shared
from enet_tvm.compiler.kernels.gpu.half_arithmetic import (
    both,
    chain_of,
    float_of,
    multiply_add,
    no_pair,
    pack_floats,
    pairs_of_outputs,
)
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes

_FOR_NOTHING = 1.25
"""Most channels that a thread computes for each that there is: an odd number of a thread's has a pair half full."""


@dataclass(frozen=True)
class GpuHalf2BottleneckTemplate(GpuBottleneckTemplate):
    """The end of a bottleneck and the beginning of the next on a GPU that multiplies and adds pairs of float16."""

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether the kernel of float32 covers it, and channels come in pairs at some tile."""
        return super().covers(spec, unit) and bool(cls(spec, unit).points())

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return [tile for tile in super().points() if divides(self.spec, tile)]

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return bottleneck_kernel(self.spec, point, Half2BottleneckKernel)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return what the kernel of float32 takes, but weights as pairs of output channels."""
        return bottleneck_operands(self.spec, point, arguments, Half2BottleneckKernel)


def divides(spec: FusedBottleneck, tile: BottleneckTile) -> bool:
    """Whether channels come in pairs wherever threads share them."""
    if spec.data_shape[1] % 2 or (spec.data_shape[1] // 2) % max(1, tile.threads // tile.block_pixels):
        return False
    share, together = tile.channels, narrowed_together(spec, tile)
    if together:
        computed = sum(2 * _pairs(count) for count in together.values())
        if computed > _FOR_NOTHING * sum(together.values()) or tile.chunk // together_splits(spec, tile) % 2:
            return False
    for part, inputs in ((spec.conv, None), (None if together else spec.reduce, tile.chunk)):
        if part is not None:
            splits = tile.chunk // part.out_shape[1]
            share = share // splits if part is spec.conv else share
            if (inputs or part.data_shape[1]) // splits % 2:
                return False
    return tile.channels % 2 == 0 and share % 2 == 0


class Half2BottleneckKernel(BottleneckKernel):
    """Emits the kernel."""

    word: ClassVar[int] = 2

    weight_dtype: ClassVar[str] = "uint32"

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the packed weight of a convolution."""
        batch, outputs, height, width = part.out_shape
        words = outputs // tile.channels * _pairs(tile.channels)
        return super().weight_shape(replace(part, out_shape=(batch, words, height, width)), _of_words(tile))

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution (OC x IC x KH x KW) as pairs of output channels, as those of float32 lie.

        The last pair of a thread's odd number of channels is half full.
        """
        if tile.channels % 2:
            of_threads = weight.reshape(-1, tile.channels, *weight.shape[1:])
            full = np.concatenate([of_threads, np.zeros_like(of_threads[:, :1])], axis=1)
            weight = full.reshape(-1, *weight.shape[1:])
        return super().packed_weight(part, pairs_of_outputs(weight), _of_words(tile))

    @staticmethod
    def shared_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
        """Return the rows of both parts of the shared memory: of pairs of channels, or of sums in float32 of one."""
        return half2_rows(spec, tile)

    def _zeros(self, name: str) -> Any:
        # Pairs are added up whole; of the half that is empty nothing is left in the machine code.
        shape = (self.tile.pixels, 2 * _pairs(self.narrowed.get(name, self.tile.channels)))
        acc = private(shape)
        with for_each(*shape) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        return acc

    def _words(self, rows: int, length: int) -> Any:
        return shared((rows, length), "uint32")

    def _input(self, word: Any, row: Any, column: Any) -> Any:
        return self._pair_of_inputs(word * 2, 1, row, column)

    def _pair_of_inputs(self, channel: Any, apart: int, row: Any, column: Any) -> Any:
        """Return the word of two channels of the input."""
        data = self.buffers["data"]
        return pack_floats(*(data[self.picture, channel + k * apart, row, column] for k in range(2)))

    def _nothing(self) -> Any:
        return no_pair()

    def _packed(self, values: list[Any]) -> Any:
        # Apart from their stores, which would not be vectors of what functions return.
        words = private((self.own,), "uint32")
        with for_each(self.own) as (i,):
            T.buffer_store(words, pack_floats(values[0][i], values[1][i]), [i])
        return words

    def _sum_words(self, sums: Any, *channel: Any) -> Callable[[Any], Any]:
        words = private((self.tile.pixels,), "uint32")
        with for_each(self.tile.pixels) as (i,):
            T.buffer_store(words, T.reinterpret("uint32", sums[(i, *channel)]), [i])
        return lambda i: words[i]

    def _load_sums(self, values: Any, start: int, count: int, row: Any, slot: Any) -> None:
        words = private((count,), "uint32")
        with for_vector(count) as e:
            T.buffer_store(words, self.shared[row, slot + e], [e])
        with for_each(count) as (i,):
            T.buffer_store(values, T.reinterpret("float32", words[i]), [start + i])

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
        of_thread = (group,) if runs is None else (group, runs.position(self.lane))
        self._add_products({name: acc}, rows, [*place, start], of_thread, inputs, runs)

    def _add_together(self, sums: dict[str, Any], turn: Any) -> None:
        tile = self.tile
        group, split, splits = self._share_of(self.spec.named["reduce"], self.narrowed["reduce"])
        inputs = tile.chunk // splits
        rows, first = self.first_rows + split * (inputs // 2), turn * tile.chunk + split * inputs
        self._add_products(sums, rows, [0, 0, first], (group,), inputs)

    def _add_products(
        self,
        sums: dict[str, Any],
        rows: Any,
        leading: list[Any],
        of_thread: tuple[Any, ...],
        inputs: int,
        runs: CellRuns | None = None,
    ) -> None:
        """Add the products of `inputs` channels, in shared memory from a row on, to the sums of one convolution or of more.

        `leading` are the first indices of the weights of the first channel, and `of_thread` those after the vector.
        """
        tile, chain = self.tile, chain_of(inputs)
        words = {name: _pairs(self.narrowed.get(name, tile.channels)) for name in sums}
        pairs = chain // 2
        unrolled = unrolled_inputs(tile, pairs, 2 * sum(words.values()))
        *place, start = leading

        def add_chain(first: Any) -> None:
            chains = {name: private((tile.pixels, words[name]), "uint32") for name in sums}
            for name, of_chain in chains.items():
                with for_each(tile.pixels, words[name]) as index:
                    T.buffer_store(of_chain, no_pair(), list(index))
            with T.serial(pairs // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
                pair = first + outer * unrolled + inner
                values = private((tile.pixels,), "uint32")
                self._load_shared(values, rows + pair, runs)
                for number in range(2):
                    at = [*place, start + pair * 2 + number]
                    for name, of_chain in chains.items():
                        weights = private((words[name],), "uint32")
                        self._load_weights(weights, self.buffers[f"{name}_weight"], at, of_thread, 2 * words[name])
                        with for_each(tile.pixels, words[name]) as (i, c):
                            value = multiply_add(both(values[i], number), weights[c], of_chain[i, c])
                            T.buffer_store(of_chain, value, [i, c])
            for name, of_chain in chains.items():
                acc = sums[name]
                with for_each(tile.pixels, words[name]) as (i, c):
                    for number in range(2):
                        own = [i, c * 2 + number]
                        T.buffer_store(acc, acc[tuple(own)] + float_of(of_chain[i, c], number), own)

        if inputs == chain:
            add_chain(0)
            return
        with T.serial(inputs // chain, unroll=False) as piece:
            add_chain(piece * pairs)

    def _load_weights(
        self, weights: Any, packed: Any, leading: list[Any], of_thread: tuple[Any, ...], channels: int | None = None
    ) -> None:
        super()._load_weights(weights, packed, leading, of_thread, (channels or self.tile.channels) // 2)


def _of_words(tile: BottleneckTile) -> BottleneckTile:
    """Return the tile by which weights lie: its channels are words of two."""
    return replace(tile, channels=_pairs(tile.channels))


def _pairs(channels: int) -> int:
    """Return the words of two that a thread's channels take."""
    return -(-channels // 2)


def half2_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
    """Return the rows of words of both parts of the shared memory, as `shared_rows` does of float32."""
    first, _ = shared_rows(spec, tile)
    inputs = 0 if spec.conv is None else spec.conv.data_shape[1]
    shared = [spec.conv, spec.reduce if spec.beside is None else None]
    adds_up = (
        cell_runs(spec, tile) is not None
        or together_splits(spec, tile) > 1
        or any(part is not None and tile.chunk > part.out_shape[1] for part in shared)
    )
    return first // 2, max(inputs // 2, tile.chunk if adds_up else tile.chunk // 2)
