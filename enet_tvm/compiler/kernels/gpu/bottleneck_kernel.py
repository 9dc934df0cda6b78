"""The kernel of a bottleneck: the end of one and the beginning of the next, and what lies between them stays in shared memory.

A block computes all channels of some pixels, in three steps, each a product of a matrix of weights and one of inputs, channels
by pixels, in shared memory:

- `conv`: position after position of its kernel, the inputs that its pixels take there are copied into shared memory. So any
  dilation and step costs the same, and reads no more than the pixels it needs;
- `expand`, as many channels at a time as its threads compute together: they are written, and kept for
- `reduce`, whose sums go on from some channels to the next. One of 2x2 with stride 2 is such a product too: of each pixel with
  the weights of its place in its cell, and the four sums of a cell are added up at the end. Where there is `beside`, a thread
  has some channels of both, fewer than of the others, so that there are registers for the sums and each pixel is loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments
from enet_tvm.compiler.kernels.gpu.bottleneck_sums import BottleneckSums
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, channels_of
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import (
    bottleneck_weight_shape,
    group_tile,
    is_of_cells,
    pack_bottleneck_weight,
    pack_cell_weight,
)
from enet_tvm.compiler.kernels.gpu.building import barrier, for_each, for_threads, for_vector, if_all, private
from enet_tvm.compiler.kernels.gpu.conv2d import epilogue_arguments, gpu_operands
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D


class BottleneckKernel(BottleneckSums):
    """Emits the kernel of a bottleneck, step by step.

    Attributes
    ----------
    weight_dtype : str
        Type of the elements of the packed weights.
    """

    weight_dtype: ClassVar[str] = "float32"

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the weights of a convolution, of which a thread has as many channels as the tile."""
        return bottleneck_weight_shape(part, tile)

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution (OC x IC x KH x KW) as the kernel takes it."""
        return (pack_cell_weight if is_of_cells(part) else pack_bottleneck_weight)(weight, tile)

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

    def begin(self, *launch: Any) -> None:
        """Emit what comes before `expand`, whose input is in the first part of the shared memory then."""
        self.start(*launch)
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

    def _add_reduced(self, reduce: FusedConv2D, acc: Any, turn: Any) -> None:
        """Add the products of the channels of `expand` of a turn to the sums of `reduce`."""
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

    def _finish_together(self, sums: dict[str, Any]) -> None:
        """End the sums of `reduce` and `beside`, and write them."""
        for name, output in (("reduce", "reduced"), ("beside", "beside_out")):
            self._finish(self.spec.named[name], name, sums[name], self._keeping(output))


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


def _tile_of(name: str, spec: FusedBottleneck, tile: BottleneckTile) -> BottleneckTile:
    """Return the tile with as many channels as a thread has of one of the convolutions."""
    return replace(tile, channels=channels_of(name, spec, tile))
