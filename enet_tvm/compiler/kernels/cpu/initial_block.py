"""ENet's initial block as one kernel: the picture is read once and the concatenation never exists.

What the pooling finds is one more tap of the convolution, with weights in the pooled channels' lanes alone. Where the output
is of short elements, so is the picture, from where it is read on: the colours of a pixel are words of a dot product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import (
    Arguments,
    Registers,
    activated,
    for_rows,
    prim_func,
    tile_places,
    tile_start,
)
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import convolution_features, known
from enet_tvm.compiler.kernels.common.elements import (
    accumulator,
    arithmetic,
    by_lane,
    lane,
    largest,
    multiply_add,
    splat,
    store_pixels,
    to_words,
    vector,
    write_edges,
    zero_word,
)
from enet_tvm.compiler.kernels.common.llvm_functions import Isa
from enet_tvm.compiler.kernels.cpu.packing import rounding_zero, slopes, summands, words
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile, VectorUnit, nearest_first, register_tiles
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, InitialBlockAttrs, Layout
from enet_tvm.compiler.quantisation.codes import Codes, quantise_weight, zero_starts

Shape = tuple[int, int, int, int]

TAPS = 10
"""Taps of the convolution, row-major, and one of the pooling."""

_NEIGHBOURS = 8
"""Pixels that are loaded at once where they are multiplied by lane."""

MOST_COLOURS = 8
"""Most channels of a picture: all of them are unrolled, and the pooling multiplies with every filter's lane."""


@dataclass(frozen=True)
class InitialBlockTemplate:
    """ENet's initial block.

    Attributes
    ----------
    shape : tuple of int
        N x C x H x W of the picture.
    filters : int
        Output channels of its convolution.
    layout : Layout
        Layout of its output.
    pool : int
        Height and width of the window of its pooling.
    unit : VectorUnit
        Vector registers of the target.
    """

    shape: tuple[int, int, int, int]
    filters: int
    layout: Layout
    pool: int
    unit: VectorUnit
    spec_type: ClassVar[type] = InitialBlockAttrs
    point_type: ClassVar[type] = RegisterTile

    @classmethod
    def covers(cls, spec: InitialBlockAttrs, unit: VectorUnit) -> bool:
        """Whether it is of a picture, plain and of few channels, with a blocked output."""
        return spec.out_layout.block > 0 and spec.data_layout == PLANAR and spec.data_shape[1] <= MOST_COLOURS

    @classmethod
    def of(cls, spec: InitialBlockAttrs, unit: VectorUnit) -> Self:
        """Return the template for a call."""
        return cls(spec.data_shape, spec.filters, spec.out_layout, spec.pool, unit)

    @property
    def name(self) -> str:
        """Name of the kernel, the same for every shape: a network has one."""
        return "initial_block"

    @property
    def default(self) -> RegisterTile:
        """The tile that fills the registers."""
        return initial_tile(self.shape, self.layout, self.filters + self.shape[1], self.unit)

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        return nearest_first(self.default, initial_tiles(self.shape, self.layout, self.filters + self.shape[1], self.unit))

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return initial_block(self.shape, self.filters, self.layout, point, self.pool, self.unit.isa)

    def operands(
        self, point: RegisterTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the picture, weights, bias and slopes, and what codes of the output ask for: see `initial_block`.

        Everything up to the activation is in units of the output's codes, where it has such.
        """
        data, slope, layout = arguments[0], known(arguments[5]), self.layout
        weight, bias, scale, shift = (known(argument) / np.float32(own.scale) for argument in arguments[1:5])
        full, biases = initial_weight(weight, scale), np.concatenate([bias, shift])
        if not layout.codes:
            packed = words(pack_initial_weight(full, layout, point), layout)
            return [data, constant(packed), *summands([constant(biases)], layout), *slopes([constant(slope)], layout)]
        values, factors = quantise_weight(full, axis=0)
        picture = codes.spanning(data)
        coding = np.array([1 / picture.scale, picture.rounding_zero], "float32")
        packed = words(pack_initial_weight(values, layout, point), layout)
        starts = zero_starts(values.sum(axis=(1, 2), dtype=np.int64), picture.stored_zero(layout.dtype))
        sums = [factors * np.float32(picture.scale), starts, biases + rounding_zero(own)]
        return [data, *map(constant, (coding, packed, *sums, slope, rounding_zero(own)))]

    def features(self, point: RegisterTile) -> list[float]:
        """Return the features of this tile."""
        n, inputs, height, width = self.shape
        out_shape = (n, self.filters + inputs, height // 2, width // 2)
        spec = FusedConv2D(self.shape, out_shape, (3, 3), (2, 2), (1, 1), (1, 1), out_layout=self.layout)
        return convolution_features(spec, self.layout.block, width // 2, point.pixels, point.blocks, 1)


def initial_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the block's weights, (F + C) x C x `TAPS`, of its filters (F x C x 3 x 3) and its pooled channels' scales (C)."""
    filters, inputs = weight.shape[:2]
    full = np.zeros((filters + inputs, inputs, TAPS), weight.dtype)
    full[:filters, :, :-1] = weight.reshape(filters, inputs, -1)
    full[np.arange(filters, filters + inputs), np.arange(inputs), -1] = scale
    return full


def pack_initial_weight(weight: np.ndarray, layout: Layout, tile: RegisterTile) -> np.ndarray:
    """Return weights of `initial_weight` as tile of channels, tap, input channel, lane; zeros fill the last word."""
    channels, inputs, _ = weight.shape
    width = tile.blocks * layout.block
    ordered = weight.transpose(2, 1, 0).reshape(TAPS, inputs, channels // width, width).transpose(2, 0, 1, 3)
    missing = -inputs % layout.per_word
    return np.ascontiguousarray(np.pad(ordered, ((0, 0), (0, 0), (0, missing), (0, 0))))


def initial_tile(shape: Shape, layout: Layout, channels: int, unit: VectorUnit) -> RegisterTile:
    """Return the register tile of the block."""
    return initial_tiles(shape, layout, channels, unit)[0]


def initial_tiles(shape: Shape, layout: Layout, channels: int, unit: VectorUnit) -> list[RegisterTile]:
    """Return the register tiles worth measuring, that of `initial_tile` first."""
    tiles = register_tiles(replace(unit, lanes=layout.block), shape[3] // 2, channels // layout.block)
    # What is multiplied by lane are pixels of a row here, of which so many are loaded at once.
    narrow = [tile for tile in tiles if tile.pixels <= _NEIGHBOURS] if by_lane(layout.dtype, unit.isa) else tiles
    return narrow or [RegisterTile(min(_NEIGHBOURS, shape[3] // 2), 1)]


def initial_block(
    shape: Shape, filters: int, layout: Layout, tile: RegisterTile, pool_size: int = 2, isa: Isa = "x86"
) -> tvm.tirx.PrimFunc:
    """Return the kernel: data (NCHW), weight, bias, slope -> out.

    Where the output is of codes, there are more arguments: after the data what makes codes of them, factor and offset; after
    the weight the scale of each channel's sum and the sums' starts; before the output its code of zero plus a half. Everything
    after the sum is in units of codes then, and counted from that of zero, which the bias has in it.

    Parameters
    ----------
    shape : tuple of int
        N x C x H x W of the picture, stored plainly.
    filters : int
        Output channels of the convolution; the C pooled channels follow them.
    layout : Layout
        Layout of the output; its block divides `filters` + C.
    tile : RegisterTile
        Pixels and blocks that are computed at once.
    pool_size : {2, 3}
        Window of the pooling: 2x2, or 3x3 padded by 1.
    isa : {"x86", "aarch64"}
        Instruction set whose dot products to use.
    """
    n, inputs, height, width = shape
    channels = filters + inputs
    group_width = tile.blocks * layout.block
    arguments: Arguments = {"data": (shape, "float32")}
    if layout.codes:
        arguments["coding"] = ((2,), "float32")
    arguments["weight"] = ((channels // group_width, TAPS, -(-inputs // layout.per_word), group_width), layout.storage)
    if layout.codes:
        arguments["scale"] = ((channels,), "float32")
        arguments["starts"] = ((channels,), "int32")
    arguments["bias"] = ((channels,), arithmetic(layout.dtype))
    arguments["slope"] = ((channels,), arithmetic(layout.dtype))
    if layout.codes:
        arguments["zero"] = ((1,), "float32")
    arguments["out"] = (layout.physical((n, channels, height // 2, width // 2)), layout.storage)

    def body(*buffers: Any) -> None:
        _InitialBlock(shape, channels, layout, tile, pool_size, dict(zip(arguments, buffers, strict=True)), isa).emit()

    return prim_func(arguments, body, isa)


class _InitialBlock:
    """Emits the statements of the block."""

    def __init__(
        self,
        shape: Shape,
        channels: int,
        layout: Layout,
        tile: RegisterTile,
        pool_size: int,
        buffers: dict[str, Any],
        isa: Isa,
    ) -> None:
        self.shape = shape
        self.channels = channels
        self.layout = layout
        self.tile = tile
        self.pool_size = pool_size
        self.buffers = buffers
        self.planes = -(-shape[1] // layout.per_word)
        self.columns = shape[3] // 2
        self.by_lane = by_lane(layout.dtype, isa)
        self.lanes = next(k for k in (16, 8, 4, 2, 1) if self.columns % k == 0)

    def emit(self) -> None:
        layout, dtype = self.layout, self.layout.storage
        with for_rows(self.shape[0], self.shape[2] // 2) as (picture, row):
            # The three rows of the picture that this row needs, even and odd columns apart, so that what stride 2 reads
            # are neighbours; the odd ones after a zero.
            # A register of neighbours may reach beyond a row by as many as a tile has fewer.
            columns = self.columns + (_NEIGHBOURS - self.tile.pixels if self.by_lane else 0)
            even = T.alloc_buffer((3, self.planes, columns), dtype, scope="global", layout=None)
            odd = T.alloc_buffer((3, self.planes, 1 + columns), dtype, scope="global", layout=None)
            pooled = T.alloc_buffer((self.planes, columns), dtype, scope="global", layout=None)
            self._copy(even, odd, picture, row)
            self._pool(even, odd, pooled, row)
            with T.serial(self.channels // layout.block) as block:
                zero = self.buffers["zero"][0] if layout.codes else 0
                write_edges(self.buffers["out"], (picture, block, row), self.columns, layout, zero)
            self._convolve(even, odd, pooled, picture, row)

    def _copy(self, even: Any, odd: Any, picture: Any, row: Any) -> None:
        """Emit the copies of a picture's rows; that above the picture is of zeros."""
        offset = self.buffers["coding"][1] if self.layout.codes else 0
        zero = zero_word(self.layout, offset)
        with T.serial(3) as kh:
            source = row * 2 + kh - 1
            for plane in range(self.planes):
                T.buffer_store(odd, zero, [kh, plane, 0])
            with T.serial(self.columns // self.lanes) as piece:
                start = piece * self.lanes
                for plane in range(self.planes):
                    both = self._read(picture, plane, T.max(source, 0), start * 2)
                    both = T.bind(T.Select(splat(source >= 0, 2 * self.lanes), both, splat(zero, 2 * self.lanes)))
                    T.buffer_store(even, _every_second(both, 0, self.lanes), [kh, plane, vector(start, self.lanes)])
                    T.buffer_store(odd, _every_second(both, 1, self.lanes), [kh, plane, vector(1 + start, self.lanes)])

    def _read(self, picture: Any, plane: int, row: Any, start: Any) -> Any:
        """Return neighbours in a row of the picture: words of as many channels as these hold."""
        per_word = self.layout.per_word
        channels = range(plane * per_word, min((plane + 1) * per_word, self.shape[1]))
        values = [self.buffers["data"][picture, channel, row, vector(start, 2 * self.lanes)] for channel in channels]
        if self.layout.codes:
            factor, offset = (splat(self.buffers["coding"][k], 2 * self.lanes) for k in range(2))
            values = [value * factor + offset for value in values]
        return to_words(values, self.layout.dtype, 2 * self.lanes)

    def _pool(self, even: Any, odd: Any, pooled: Any, row: Any) -> None:
        """Emit the pooling of one row."""
        lanes, dtype = self.lanes, self.layout.dtype
        with T.serial(self.planes) as plane, T.serial(self.columns // lanes) as piece:
            start = piece * lanes
            best = None
            for kh in range(3 - self.pool_size, 3):
                # What lies outside the picture is replaced by a neighbour inside the window.
                line = T.max(kh, 1 - row) if kh == 0 else kh
                middle = even[line, plane, vector(start, lanes)]
                candidates = [middle, odd[line, plane, vector(1 + start, lanes)]]
                if self.pool_size == 3:
                    left = odd[line, plane, vector(start, lanes)]
                    inside = vector(start, lanes) > splat(tvm.tirx.const(0, "int32"), lanes)
                    candidates.append(T.Select(inside, left, middle))
                for pixels in candidates:
                    best = pixels if best is None else largest(best, pixels, dtype, lanes)
            T.buffer_store(pooled, best, [plane, vector(start, lanes)])

    def _convolve(self, even: Any, odd: Any, pooled: Any, picture: Any, row: Any) -> None:
        block, tile = self.layout.block, self.tile
        for group in range(self.channels // (block * tile.blocks)):
            with T.serial(-(-self.columns // tile.pixels)) as piece:
                start = tile_start(piece, tile.pixels, self.columns)
                acc = self._started(group)
                with T.serial(self.planes) as plane:
                    with T.serial(3) as kh:
                        for kw, line in enumerate((odd, even, odd)):
                            pixels = self._neighbours(line, (kh, plane), start, int(kw == 2))
                            for i, o in tile_places(tile.pixels, tile.blocks):
                                self._multiply_add(acc, (i, o), pixels[i], (group, kh * 3 + kw, plane))
                    pixels = self._neighbours(pooled, (plane,), start)
                    for i, o in tile_places(tile.pixels, tile.blocks):
                        self._multiply_add(acc, (i, o), pixels[i], (group, TAPS - 1, plane))
                self._store(acc, picture, row, start, group)

    def _neighbours(self, line: Any, leading: tuple[Any, ...], start: Any, more: int = 0) -> list[Any]:
        """Return the pixels of a tile, neighbours in a row from `start` and `more` on."""
        if not self.by_lane:
            return [line[(*leading, start + i + more)] for i in range(self.tile.pixels)]
        loaded = T.bind(line[(*leading, vector(start + more, _NEIGHBOURS))])
        return [lane(loaded, i) for i in range(self.tile.pixels)]

    def _started(self, group: int) -> Registers:
        block, sums = self.layout.block, accumulator(self.layout.dtype)
        acc = Registers((self.tile.pixels, self.tile.blocks), block, sums)
        for i, o in tile_places(self.tile.pixels, self.tile.blocks):
            own = vector((group * self.tile.blocks + o) * block, block)
            acc[i, o] = self.buffers["starts"][own] if self.layout.codes else splat(tvm.tirx.const(0, sums), block)
        return acc

    def _multiply_add(self, acc: Registers, place: tuple[int, int], pixel: Any, weight: tuple[Any, ...]) -> None:
        """Add to one vector of sums what one word of the picture contributes."""
        block = self.layout.block
        weights = self.buffers["weight"][(*weight, vector(place[1] * block, block))]
        acc[place] = multiply_add(acc[place], pixel, weights, self.layout.dtype, block)

    def _store(self, acc: Registers, picture: Any, row: Any, start: Any, group: int) -> None:
        """Emit bias, activation and the stores of a tile."""
        for o in range(self.tile.blocks):
            block = group * self.tile.blocks + o
            values = [self._finished(acc[i, o], block) for i in range(self.tile.pixels)]
            store_pixels(self.buffers["out"], values, (picture, block, row, start + self.layout.pad), self.layout)

    def _finished(self, value: Any, block: int) -> Any:
        buffers, lanes = self.buffers, self.layout.block
        own = vector(block * lanes, lanes)
        if self.layout.codes:
            value = T.cast(value, f"float32x{lanes}") * buffers["scale"][own]
        zero = splat(buffers["zero"][0], lanes) if self.layout.codes else None
        return activated(
            value + buffers["bias"][own], "prelu", lambda: buffers["slope"][own], lanes, zero, masks=not self.by_lane
        )


def _every_second(values: Any, first: int, lanes: int) -> Any:
    """Return every second of 2 x `lanes` values, from `first` on."""
    chosen = [tvm.tirx.const(first + 2 * k, "int32") for k in range(lanes)]
    return tvm.tirx.Shuffle([values], chosen)
