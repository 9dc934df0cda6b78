"""Convolutions between channel-blocked tensors: one register tile, everything around it in the epilogue.

The tile holds `pixels` neighbours of a row times `blocks` vectors of output channels in registers, while the loops
over kernel rows, columns and input channels run inside. Rows outside the picture are skipped, columns outside are
zeros that the producer wrote.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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
    if_inside,
    prim_func,
    tile_places,
    tile_start,
)
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, ConvolutionTemplate, convolution_features
from enet_tvm.compiler.kernels.common.elements import (
    accumulator,
    arithmetic,
    by_lane,
    lane,
    load,
    multiply_add,
    pixels_together,
    splat,
    store,
    store_pixels,
    unknown,
    vector,
    write_edges,
    zeros,
)
from enet_tvm.compiler.kernels.common.llvm_functions import Isa
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.cpu.packing import coded, rounding_zero, slopes, summands, words
from enet_tvm.compiler.kernels.cpu.register_tile import (
    NEIGHBOURS,
    RegisterTile,
    VectorUnit,
    nearest_first,
    neighbour_tiles,
    register_tile,
    register_tiles,
)
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes, zero_starts

Product = tuple[tuple[int, ...], tuple[int, int], tuple[Any, Any]]
"""A product that is added to a sum: place of the sum; number of the pixel in the tile, and how far from it that of the data is;
row and column of the kernel."""


@dataclass(frozen=True)
class Conv2DTemplate(ConvolutionTemplate):
    """A fused convolution whose output is channel-blocked.

    Attributes
    ----------
    spec : FusedConv2D
        The convolution, its `layers` left out.
    unit : VectorUnit
        Vector registers of the target.
    """

    unit: VectorUnit
    point_type: ClassVar[type] = RegisterTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: VectorUnit) -> bool:
        """Whether the output is blocked and, if the convolution is transposed, twice the input's size without a shortcut."""
        if not spec.out_layout.block or spec.argmax:
            return False
        return not spec.transposed or (spec.doubles and spec.residual == "none")

    @property
    def default(self) -> RegisterTile:
        """The tile that fills the registers."""
        return tile_of(self.spec, self.unit)

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        return nearest_first(self.default, tiles_of(self.spec, self.unit))

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return conv2d(self.spec, point, self.unit.isa)

    def operands(
        self, point: RegisterTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return data, weights, bias and slopes, what the codes ask for, and the shortcut: see `conv2d`.

        Activations commute with a positive factor, so bias, sums and shortcut are brought to units of the output's codes,
        and nothing is left to multiply when they are stored.
        """
        spec, unit = self.spec, np.float32(own.scale)
        given = ConvolutionArguments.of(spec, arguments)
        bias, sums = given.bias / unit, list[np.ndarray]()
        if spec.data_layout.codes:
            weight, scales, zero = coded(given.weight, int(spec.transposed), codes.stored(given.data), spec.data_layout)
            sums = [scales / unit, zero_starts(weight_sums(weight, spec), zero)]
            packed = self.pack(weight, point)
        else:
            packed = self.pack(given.weight / unit, point)
        scaled: list[np.ndarray] = []
        if spec.residual != "none" and (spec.residual_layout.codes or spec.out_layout.codes):
            residual = codes.stored(given.residual)
            scaled.append(np.array([residual.scale, residual.offset], "float32") / unit)
            if spec.residual_layout.codes and offset_in_bias(spec):
                bias = bias + scaled[0][1]
        if spec.out_layout.codes:
            scaled.append(rounding_zero(own))
        if zero_in_bias(spec):
            bias = bias + rounding_zero(own)
        added = [*summands([constant(bias)], spec.data_layout), *slopes(given.slopes, spec.data_layout)]
        return [given.data, *map(constant, (packed, *sums)), *added, *map(constant, scaled), *given.shortcut]

    def pack(self, weight: np.ndarray, point: RegisterTile) -> np.ndarray:
        """Return weights, bytes where the data are of codes, as the kernel with this tile reads them."""
        return words(pack_weight(weight, self.spec, point), self.spec.data_layout)

    def features(self, point: RegisterTile) -> list[float]:
        """Return the features of this tile."""
        phases = 4 if self.spec.transposed else 1
        width = self.spec.data_shape[3] if self.spec.transposed else self.spec.out_shape[3]
        return convolution_features(self.spec, self.spec.out_layout.block, width, point.pixels, point.blocks, phases)


def column_reach(attrs: FusedConv2D) -> int:
    """Return how many columns of zeros the convolution reads past either end of an input row."""
    if attrs.transposed:
        return max(abs(dx) for _, _, _, dx in transposed_taps(attrs))
    left = attrs.padding[1]
    last = (attrs.out_shape[3] - 1) * attrs.strides[1] + (attrs.kernel[1] - 1) * attrs.dilation[1] - left
    return max(left, last - (attrs.data_shape[3] - 1), 0)


def by_neighbour(attrs: FusedConv2D, isa: Isa) -> bool:
    """Whether the words of neighbours are best loaded at once, and each multiplied from its lane of the register.

    That is so on ARM, whose ``sdot`` takes a word of a register, where a pixel's block is one or two words and a tile reads
    neighbours.
    """
    data = attrs.data_layout
    reads_neighbours = not attrs.transposed and attrs.strides[1] == 1 and attrs.out_shape[3] >= NEIGHBOURS
    return isa == "aarch64" and data.codes and 0 < data.block <= 2 * data.per_word and reads_neighbours


def tile_of(attrs: FusedConv2D, unit: VectorUnit) -> RegisterTile:
    """Return the register tile of a convolution on a target."""
    if by_neighbour(attrs, unit.isa):
        return tiles_of(attrs, unit)[0]
    return register_tile(*_tiled(attrs, unit))


def tiles_of(attrs: FusedConv2D, unit: VectorUnit) -> list[RegisterTile]:
    """Return the register tiles worth measuring, that of `tile_of` first."""
    if by_neighbour(attrs, unit.isa):
        words, lanes = attrs.data_layout.block // attrs.data_layout.per_word, attrs.out_layout.block
        return neighbour_tiles(attrs.out_shape[3], attrs.out_shape[1] // lanes, words, lanes)
    return register_tiles(*_tiled(attrs, unit))


def _tiled(attrs: FusedConv2D, unit: VectorUnit) -> tuple[VectorUnit, int, int, int, int, bool]:
    """Return the arguments of `register_tile` for a convolution."""
    lanes, lanewise = attrs.out_layout.block, by_lane(attrs.data_layout.dtype, unit.isa)
    channel_blocks = attrs.out_shape[1] // lanes
    unit = replace(unit, lanes=lanes)
    if attrs.transposed:
        return unit, attrs.data_shape[3], channel_blocks, 4, 1, lanewise
    return unit, attrs.out_shape[3], channel_blocks, 1, 2 if attrs.residual == "unpool" else 1, lanewise


def pack_weight(weight: np.ndarray, attrs: FusedConv2D, tile: RegisterTile) -> np.ndarray:
    """Return weights in the order the kernel reads them: tile of channels, kernel row and column, input channel, lane.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW, or IC x OC x KH x KW when transposed.
    """
    ordered = weight.transpose(2, 3, 0, 1) if attrs.transposed else weight.transpose(2, 3, 1, 0)
    kh, kw, inputs, outputs = ordered.shape
    width = tile.blocks * attrs.out_layout.block
    return np.ascontiguousarray(ordered.reshape(kh, kw, inputs, outputs // width, width).transpose(3, 0, 1, 2, 4))


def skips_rows(attrs: FusedConv2D) -> bool:
    """Whether some output row needs input rows outside the picture, which the kernel leaves out."""
    if attrs.transposed:
        return any(dy for _, _, dy, _ in transposed_taps(attrs))
    last = (attrs.out_shape[2] - 1) * attrs.strides[0] + (attrs.kernel[0] - 1) * attrs.dilation[0]
    return attrs.padding[0] > 0 or last >= attrs.data_shape[2]


def starts_shape(attrs: FusedConv2D) -> tuple[int, int, int]:
    """Return the shape of the sums' starting values where the data are codes: rows, phases, output channels.

    A code's product with a weight counts its zero's code too, which is taken off in advance; how often depends on which
    rows of the kernel lie outside the picture, hence on the row.
    """
    rows = attrs.data_shape[2] if attrs.transposed else attrs.out_shape[2]
    return rows if skips_rows(attrs) else 1, 4 if attrs.transposed else 1, attrs.out_shape[1]


def weight_sums(weight: np.ndarray, attrs: FusedConv2D) -> np.ndarray:
    """Return for every sum of the kernel, by row, phase and channel (`starts_shape`), the sum of the weights in it.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW, or IC x OC x KH x KW when transposed, of whole numbers.
    """
    rows = attrs.data_shape[2]
    sums = np.zeros(starts_shape(attrs), np.int64)
    if attrs.transposed:
        taps = weight.sum(axis=0, dtype=np.int64)
        for (a, b), tap, dy, _ in transposed_taps(attrs):
            for row in range(len(sums)):
                if 0 <= row + dy < rows:
                    sums[row, 2 * a + b] += taps[:, *divmod(tap, attrs.kernel[1])]
        return sums
    lines = weight.sum(axis=(1, 3), dtype=np.int64)
    for row in range(len(sums)):
        for kh in range(attrs.kernel[0]):
            if 0 <= row * attrs.strides[0] + kh * attrs.dilation[0] - attrs.padding[0] < rows:
                sums[row, 0] += lines[:, kh]
    return sums


def tap_sums(weight: np.ndarray, attrs: FusedConv2D) -> np.ndarray:
    """Return for every phase and output channel the sum of all its weights, of which none is left out.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW, or IC x OC x KH x KW when transposed, of whole numbers.
    """
    if not attrs.transposed:
        return weight.sum(axis=(1, 2, 3), dtype=np.int64)[None]
    sums = np.zeros((4, attrs.out_shape[1]), np.int64)
    for (a, b), tap, _, _ in transposed_taps(attrs):
        sums[2 * a + b] += weight[:, :, *divmod(tap, attrs.kernel[1])].sum(axis=0, dtype=np.int64)
    return sums


def offset_in_bias(attrs: FusedConv2D) -> bool:
    """Whether the kernel expects the bias to include the offset of a shortcut of codes (`Codes.offset`)."""
    return attrs.residual == "add" and attrs.inner_activation == "none"


def zero_in_bias(attrs: FusedConv2D) -> bool:
    """Whether the kernel expects the bias to include the code of zero plus a half, where the output is of codes."""
    return attrs.out_layout.codes and attrs.inner_activation == "none"


def conv2d(attrs: FusedConv2D, tile: RegisterTile, isa: Isa = "x86") -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused convolution whose output is channel-blocked.

    Its arguments, as far as the operator has them: data; weight (as `pack_weight` orders it, in words of the data's
    elements); scale of each channel's sum and the sums' starts (`starts_shape`), where the data are codes; bias; inner
    slope; slope; shortcut, the scale and offset that make of a stored shortcut what is added, where it or the output is
    of codes; zero, the code of zero plus a half, where the output is; residual; window; and the output. Everything
    after the sum is in units of the output's codes where it has such, and counted from their zero's (`zero_in_bias`).
    """
    arguments = conv2d_arguments(attrs, tile)

    def body(*buffers: Any) -> None:
        Conv2DBody(attrs, tile, dict(zip(arguments, buffers, strict=True)), isa).emit()

    return prim_func(arguments, body, isa)


def conv2d_arguments(attrs: FusedConv2D, tile: RegisterTile) -> Arguments:
    """Return the kernel's arguments, outputs last."""
    channels = attrs.out_shape[1]
    width = tile.blocks * attrs.out_layout.block
    data, out, residual = attrs.data_layout, attrs.out_layout, attrs.residual_layout
    inputs, floats = attrs.data_shape[1] // data.per_word, arithmetic(data.dtype)
    arguments: Arguments = {
        "data": (data.physical(attrs.data_shape), data.storage),
        "weight": ((channels // width, *attrs.kernel, inputs, width), data.storage),
    }
    if data.codes:
        arguments["scale"] = ((channels,), "float32")
        arguments["starts"] = (starts_shape(attrs), "int32")
    arguments["bias"] = ((channels,), floats)
    if attrs.inner_activation == "prelu":
        arguments["inner_slope"] = ((channels,), floats)
    if attrs.activation == "prelu":
        arguments["slope"] = ((channels,), floats)
    if attrs.residual != "none" and (residual.codes or out.codes):
        arguments["shortcut"] = ((2,), "float32")
    if out.codes:
        arguments["zero"] = ((1,), "float32")
    if attrs.residual != "none":
        n, _, height, columns = attrs.out_shape
        if attrs.residual == "unpool":
            height, columns = height // 2, columns // 2
        shape = (n, attrs.residual_channels, height, columns)
        arguments["residual"] = (residual.physical(shape), residual.storage)
        if attrs.residual == "unpool":
            arguments["window"] = (residual.window().physical(shape), "uint8")
    arguments["out"] = (out.physical(attrs.out_shape), out.storage)
    return arguments


class Conv2DBody:
    """Emits the statements of one convolution.

    Parameters
    ----------
    attrs : FusedConv2D
        The convolution.
    tile : RegisterTile
        Pixels and blocks that are computed at once.
    buffers : dict
        The kernel's arguments by name.
    isa : {"x86", "aarch64"}
        Instruction set.
    """

    def __init__(self, attrs: FusedConv2D, tile: RegisterTile, buffers: dict[str, Any], isa: Isa = "x86") -> None:
        self.attrs = attrs
        self.tile = tile
        self.lanes = attrs.out_layout.block
        self.sums = accumulator(attrs.data_layout.dtype)
        self.floats = arithmetic(attrs.data_layout.dtype)
        self.by_lane = by_lane(attrs.data_layout.dtype, isa)
        self.by_neighbour = by_neighbour(attrs, isa)
        self.masks = isa != "aarch64"
        self.starts_with_bias = self.by_lane or attrs.data_layout.dtype == "float16"
        # A bias is moved into each sum, but added to a shortcut that was loaded there: nothing is left to add at the end.
        # Halves would all be rounded as the shortcut is.
        self.starts_with_shortcut = (
            self.by_lane and self.floats == "float32" and attrs.residual != "none" and attrs.inner_activation == "none"
        )
        self.buffers = buffers

    def emit(self) -> None:
        """Emit the whole kernel."""
        if self.attrs.transposed:
            self._transposed()
        else:
            self._direct()

    def _direct(self) -> None:
        n, _, rows, _ = self.attrs.out_shape
        with for_rows(n, rows) as (picture, row):
            self._edges(picture, row)
            self.emit_row(picture, row)

    def emit_row(self, picture: Any, row: Any) -> None:
        """Emit a row of the output of a convolution that is not transposed, its padding left out."""
        _, channels, _, width = self.attrs.out_shape
        with T.serial(-(-width // self.tile.pixels)) as piece:
            start = tile_start(piece, self.tile.pixels, width)
            with T.serial(channels // (self.lanes * self.tile.blocks)) as group:
                acc = self._started(1, row, group)
                if self.starts_with_shortcut:
                    self._add_shortcut(acc, picture, row, piece, start, group)
                self._accumulate(acc, picture, row, start, group)
                self._store(acc, picture, row, piece, start, group)

    def _accumulate(self, acc: Registers, picture: Any, row: Any, start: Any, group: Any) -> None:
        attrs, layout = self.attrs, self.attrs.data_layout
        shift = layout.pad - attrs.padding[1]
        with T.serial(attrs.kernel[0]) as kh:
            source = row * attrs.strides[0] + kh * attrs.dilation[0] - attrs.padding[0]
            with if_inside(source, attrs.data_shape[2], may_be_outside=skips_rows(attrs)):
                blocks = attrs.data_shape[1] // layout.block
                with T.serial(attrs.kernel[1]) as kw, T.serial(unknown(blocks) if self.by_neighbour else blocks) as kb:

                    def column(i: int, _: int, kw: Any = kw) -> Any:
                        return (start + i) * attrs.strides[1] + kw * attrs.dilation[1] + shift

                    products = [((0, i, o), (i, 0), (kh, kw)) for i, o in tile_places(self.tile.pixels, self.tile.blocks)]
                    self._multiply_block(acc, products, (picture, kb, source), column, group)

    def _transposed(self) -> None:
        attrs = self.attrs
        n, channels, _, _ = attrs.out_shape
        _, _, rows, width = attrs.data_shape
        with for_rows(n, rows) as (picture, row):
            for a in (0, 1):
                self._edges(picture, row * 2 + a)
            with T.serial(-(-width // self.tile.pixels)) as piece:
                start = tile_start(piece, self.tile.pixels, width)
                with T.serial(channels // (self.lanes * self.tile.blocks)) as group:
                    acc = self._started(4, row, group)
                    self._accumulate_phases(acc, picture, row, start, group)
                    for phase in range(4):
                        self._store_phase(acc, phase, picture, row, start, group)

    def _accumulate_phases(self, acc: Registers, picture: Any, row: Any, start: Any, group: Any) -> None:
        attrs, layout = self.attrs, self.attrs.data_layout
        taps = transposed_taps(attrs)
        for dy in sorted({tap[2] for tap in taps}):
            with if_inside(row + dy, attrs.data_shape[2], may_be_outside=dy != 0):
                with T.serial(attrs.data_shape[1] // layout.block) as kb:
                    products = [
                        ((2 * a + b, i, o), (i, dx), divmod(tap, attrs.kernel[1]))
                        for (a, b), tap, tap_dy, dx in taps
                        if tap_dy == dy
                        for i, o in tile_places(self.tile.pixels, self.tile.blocks)
                    ]
                    place = (picture, kb, row + dy)
                    self._multiply_block(acc, products, place, lambda i, dx: start + i + dx + layout.pad, group)

    def _multiply_block(
        self, acc: Registers, products: Sequence[Product], place: tuple[Any, Any, Any], column: Callable[..., Any], group: Any
    ) -> None:
        """Add to the sums what one block of input channels contributes.

        Parameters
        ----------
        products : sequence of Product
            Products of words with weights.
        place : tuple
            Picture, block and row of the data.
        column : callable
            Function that returns the stored column of a pixel of the data by the two numbers of a product.
        group : PrimExpr
            Tile of output channels.
        """
        layout, data, kb = self.attrs.data_layout, self.buffers["data"], place[1]
        words = layout.block // layout.per_word
        if self.by_neighbour:
            # Neighbours follow each other in memory: some of them are one vector of words.
            together = NEIGHBOURS // words
            some = [
                T.bind(data[(*place, column(first, 0), vector(0, NEIGHBOURS))])
                for first in range(0, self.tile.pixels, together)
            ]
            for ki in range(words):
                for sums, (number, _), tap in products:
                    word = lane(some[number // together], number % together * words + ki)
                    self._multiply_add(acc, sums, word, (group, *tap, kb * words + ki))
            return
        if not self.by_lane:
            with T.serial(words) as ki:
                for sums, pixel, tap in products:
                    self._multiply_add(acc, sums, data[(*place, column(*pixel), ki)], (group, *tap, kb * words + ki))
            return
        pixels = {sum(pixel): pixel for _, pixel, _ in products}
        blocks = {number: T.bind(load(data, (*place, column(*pixel)), layout, self.floats)) for number, pixel in pixels.items()}
        for ki in range(words):
            for sums, pixel, tap in products:
                self._multiply_add(acc, sums, lane(blocks[sum(pixel)], ki), (group, *tap, kb * words + ki))

    def _multiply_add(self, acc: Registers, place: tuple[int, ...], word: Any, weight: tuple[Any, ...]) -> None:
        """Add to one vector of sums what one word of the data contributes."""
        lanes = self.lanes
        weights = self.buffers["weight"][(*weight, vector(place[-1] * lanes, lanes))]
        acc[place] = multiply_add(acc[place], word, weights, self.attrs.data_layout.dtype, lanes)

    def _started(self, phases: int, row: Any, group: Any) -> Registers:
        acc = Registers((phases, self.tile.pixels, self.tile.blocks), self.lanes, self.sums)
        for phase, i, o in tile_places(phases, self.tile.pixels, self.tile.blocks):
            start = splat(tvm.tirx.const(0, self.sums), self.lanes)
            channels = vector((group * self.tile.blocks + o) * self.lanes, self.lanes)
            if self.attrs.data_layout.codes:
                start = self.buffers["starts"][row if skips_rows(self.attrs) else 0, phase, channels]
            elif self.starts_with_bias:
                start = self.buffers["bias"][channels]
            acc[phase, i, o] = start
        return acc

    def _edges(self, picture: Any, row: Any) -> None:
        layout = self.attrs.out_layout
        if layout.pad:
            zero = self.buffers["zero"][0] if layout.codes else 0
            with T.serial(self.attrs.out_shape[1] // self.lanes) as block:
                write_edges(self.buffers["out"], (picture, block, row), self.attrs.out_shape[3], layout, zero)

    def _store(self, acc: Any, picture: Any, row: Any, piece: Any, start: Any, group: Any) -> None:
        out = self.attrs.out_layout
        column, half = self._columns(piece, start)
        together = pixels_together(out)
        for first, o in self._in_order(together):
            place = (picture, group * self.tile.blocks + o, row)
            values = []
            for i in range(first, min(first + together, self.tile.pixels)):
                added = None if self.starts_with_shortcut else self._added((*place, column(i)), half, i)
                values.append(self._finished(acc[0, i, o], place[1], added))
            store_pixels(self.buffers["out"], values, (*place, column(first) + out.pad), out)

    def _add_shortcut(self, acc: Registers, picture: Any, row: Any, piece: Any, start: Any, group: Any) -> None:
        """Add the shortcut to the sums of a tile."""
        column, half = self._columns(piece, start)
        for i, o in self._in_order(1):
            acc[0, i, o] = acc[0, i, o] + self._added((picture, group * self.tile.blocks + o, row, column(i)), half, i)

    def _columns(self, piece: Any, start: Any) -> tuple[Callable[[int], Any], Any]:
        """Return the column of each pixel of a tile; and the tile's first window, where something is unpooled."""
        if self.attrs.residual != "unpool":
            return lambda i: start + i, None
        # Two neighbours share a window: addressed from it, its index and its value are loaded once for both.
        half = tile_start(piece, self.tile.pixels // 2, self.attrs.out_shape[3] // 2)
        return lambda i: half * 2 + i // 2 * 2 + i % 2, half

    def _in_order(self, together: int) -> list[tuple[int, int]]:
        """Return pixels, every so many, and blocks of a tile in the order in which they are loaded and stored."""
        places = list(itertools.product(range(0, self.tile.pixels, together), range(self.tile.blocks)))
        if not self.masks:
            # Neighbours one after the other, of which ARM loads and stores two at once; they share the channels' constants.
            places.sort(key=lambda place: place[1])
        return places

    def _unpooled(self, place: tuple[Any, Any, Any], half: Any, i: int) -> Any:
        """Return what unpooling adds at pixel `i` of a tile that begins with the window `half`."""
        picture, block, row = place
        window = (picture, block, T.floordiv(row, 2), half + i // 2)
        position = T.cast(T.floormod(row, 2) * 2 + i % 2, "uint8")
        hit = self.buffers["window"][(*window, vector(0, self.lanes))] == splat(position, self.lanes)
        return T.Select(hit, self._shortcut(window), zeros(self.floats, self.lanes))

    def _store_phase(self, acc: Registers, phase: int, picture: Any, row: Any, start: Any, group: Any) -> None:
        out = self.attrs.out_layout
        for i, o in tile_places(self.tile.pixels, self.tile.blocks):
            block = group * self.tile.blocks + o
            place = (picture, block, row * 2 + phase // 2, (start + i) * 2 + phase % 2 + out.pad)
            store(self.buffers["out"], self._finished(acc[phase, i, o], block, None), place, out)

    def _shortcut(self, place: tuple[Any, Any, Any, Any]) -> Any:
        """Return one block of the stored shortcut as it is added, but for an offset that the bias has."""
        picture, block, row, column = place
        layout = self.attrs.residual_layout
        value = load(self.buffers["residual"], (picture, block, row, column + layout.pad), layout, self.floats)
        if "shortcut" in self.buffers:
            value = value * splat(self.buffers["shortcut"][0], self.lanes)
            if layout.codes and not offset_in_bias(self.attrs):
                value = value + splat(self.buffers["shortcut"][1], self.lanes)
        return value

    def _added(self, place: tuple[Any, Any, Any, Any], half: Any, i: int) -> Any:
        """Return what the shortcut adds at pixel `i` of a tile, of which it is at `place`; None without one."""
        picture, block, row, column = place
        if self.attrs.residual == "unpool":
            return self._unpooled((picture, block, row), half, i)
        if self.attrs.residual == "add":
            return self._shortcut(place)
        if self.attrs.residual == "pad":
            known = self.attrs.residual_channels // self.lanes
            shortcut = self._shortcut((picture, T.min(block, known - 1), row, column))
            return T.Select(splat(block < known, self.lanes), shortcut, zeros(self.floats, self.lanes))
        return None

    def _finished(self, value: Any, block: Any, added: Any) -> Any:
        """Return one vector of sums with bias, what the shortcut adds and activation, as it is to be stored."""
        attrs, buffers, lanes = self.attrs, self.buffers, self.lanes
        channels = vector(block * lanes, lanes)
        if attrs.data_layout.codes:
            value = T.cast(value, f"float32x{lanes}") * buffers["scale"][channels]
        if not self.starts_with_bias:
            value = value + buffers["bias"][channels]
        value = activated(value, attrs.inner_activation, lambda: buffers["inner_slope"][channels], lanes, masks=self.masks)
        if added is not None:
            value = value + added
        zero = splat(buffers["zero"][0], lanes) if attrs.out_layout.codes else None
        if zero is not None and not zero_in_bias(attrs):
            value = value + zero
        return activated(value, attrs.activation, lambda: buffers["slope"][channels], lanes, zero, masks=self.masks)
