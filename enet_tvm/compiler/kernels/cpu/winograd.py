"""Convolutions by Winograd's algorithm: a quarter to two thirds of the multiplications, and transforms.

Filters are 3x3, or three or five taps in a row or a column. The data of a tile are transformed, multiplied by transformed
weights at each of its frequencies, summed over the input channels, and transformed back (see `winograd_transforms`). One strip
of tiles goes through all of it before the next begins, so that what lies between the three steps stays in the cache; a dilated
convolution is the same on every d-th row and column. A filter with one row or one column is transformed in the other direction
alone.

Between tensors of float16 everything is computed in it: at 32 channels the error is 0.4 % of the outputs' spread with four
outputs of three taps either way, that of the direct sum 0.2 %.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
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
)
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, ConvolutionTemplate, convolution_features
from enet_tvm.compiler.kernels.common.elements import arithmetic, load, splat, store, vector, write_edges, zeros
from enet_tvm.compiler.kernels.cpu.packing import slopes, summands
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd_transforms import data_transform, frequencies, sum_transform, weight_transform
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes

_TRANSFORM = 8
"""Cost of the transforms for each frequency of a tile and block of channels, in multiplications (measured: 5 to 9)."""
_MEASURED = {(3, 3): ((16, 32), (8, 16)), (3, 1): ((8, 16),), (1, 3): ((8, 16),)}
"""Lanes and registers of the vector units on which a direct convolution may be replaced, by the filter's rows and columns."""
_GAIN = 1.2
"""Factor by which a direct convolution must be expected to cost more for it to be replaced."""
MOST_WEIGHT = 16 << 20
"""Bytes of transformed weights, up to four times the plain ones, beyond which neither caches nor artifacts should have them."""


@dataclass(frozen=True)
class WinogradTile:
    """The outputs of a transform, and the tiles that are multiplied at once.

    Attributes
    ----------
    rows, columns : {1, 2, 4}
        Outputs of a transform; 1 in the direction in which the filter has one tap, where nothing is transformed.
    tiles : int
        Tiles whose sums, at all frequencies of a row, are in registers at once.
    """

    rows: int
    columns: int
    tiles: int


@dataclass(frozen=True)
class WinogradConvolutionTemplate(ConvolutionTemplate):
    """A convolution by Winograd's algorithm, in whichever order it multiplies.

    Attributes
    ----------
    spec : FusedConv2D
        The convolution, its `layers` left out; one that `runs_winograd`.
    unit : VectorUnit
        Vector registers of the target.
    """

    unit: VectorUnit

    @property
    def name(self) -> str:
        """The operators and shapes of the convolution, with the ending ``_winograd``."""
        return f"{super().name}_winograd"

    @property
    def default(self) -> Any:
        """The tile that is expected to be the fastest."""
        return self.points()[0]

    @abstractmethod
    def points(self) -> Sequence[Any]:
        """Return the tiles worth measuring, the default first."""

    @abstractmethod
    def pack(self, weight: np.ndarray, point: Any) -> np.ndarray:
        """Return the transformed weights as the kernel with this tile reads them."""

    def operands(self, point: Any, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return data, transformed weights, bias, slope and shortcut; nothing here is of codes."""
        given, layout = ConvolutionArguments.of(self.spec, arguments), self.spec.data_layout
        packed = constant(self.pack(given.weight, point).astype(arithmetic(layout.dtype)))
        return [given.data, packed, *summands([constant(given.bias)], layout), *slopes(given.slopes, layout), *given.shortcut]


@dataclass(frozen=True)
class WinogradTemplate(WinogradConvolutionTemplate):
    """All frequencies of a row at once, for the many wide registers of AVX2 and AVX-512."""

    point_type: ClassVar[type] = WinogradTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: VectorUnit) -> bool:
        """Whether the kernel can compute it and is expected to be clearly faster than the direct one."""
        return winograd_pays(spec, unit)

    def points(self) -> list[WinogradTile]:
        """Return the tiles worth measuring."""
        return winograd_tiles(self.spec, self.unit)

    def kernel(self, point: WinogradTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return winograd(self.spec, point)

    def pack(self, weight: np.ndarray, point: WinogradTile) -> np.ndarray:
        """Return the transformed weights as the kernel with this tile reads them."""
        return pack_winograd_weight(weight, self.spec, point)

    def features(self, point: WinogradTile) -> list[float]:
        """Return the features of this tile: weights are loaded for `tiles`, of as many sums as a row has frequencies."""
        width, lanes = self.spec.out_shape[3] // point.columns, self.spec.out_layout.block
        across = frequencies(point.columns, self.spec.kernel[1])
        return convolution_features(self.spec, lanes, width, point.tiles, 1, across, (point.rows, point.columns))


def runs_winograd(attrs: FusedConv2D) -> bool:
    """Whether the kernel covers this convolution: of the picture's size, not of codes.

    What follows it may be a shortcut of its output's shape and an activation. With five taps everything is of float32.
    """
    return (
        not attrs.transposed
        and attrs.kernel in ((3, 3), (3, 1), (1, 3), (5, 1), (1, 5))
        and (5 not in attrs.kernel or (attrs.data_layout.dtype, attrs.out_layout.dtype) == ("float32", "float32"))
        and attrs.strides == (1, 1)
        and (attrs.kernel != (3, 3) or attrs.dilation[0] == attrs.dilation[1])
        and all(pad == step * (taps // 2) for pad, step, taps in _directions(attrs))
        and all(step == 1 for _, step, taps in _directions(attrs) if taps == 1)
        and (attrs.residual == "none" or _takes_shortcut(attrs))
        and attrs.inner_activation == "none"
        and attrs.out_layout.block > 0
        and attrs.data_layout.block > 0
        and not attrs.data_layout.codes
        and not attrs.out_layout.codes
        and attrs.out_shape[3] >= 2 * attrs.dilation[1]
    )


def _directions(attrs: FusedConv2D) -> list[tuple[int, int, int]]:
    """Return (padding, dilation, taps) of the rows and of the columns."""
    return list(zip(attrs.padding, attrs.dilation, attrs.kernel, strict=True))


def _takes_shortcut(attrs: FusedConv2D) -> bool:
    """Whether the shortcut is one that the kernel adds: as it is, and stored like the output."""
    stored = attrs.residual_layout
    return attrs.residual == "add" and stored.block == attrs.out_layout.block and not stored.codes


def winograd_tiles(attrs: FusedConv2D, unit: VectorUnit) -> list[WinogradTile]:
    """Return the tiles worth measuring, the one expected to be the fastest first."""
    most = unit.accumulators + unit.registers // 8
    tiles = []
    for rows, columns in transforms(attrs):
        at_once = frequencies(columns, attrs.kernel[1]) if rows > 1 else 1
        together = range(1, min(most // at_once, tiles_of_row(attrs, columns)) + 1)
        tiles += [WinogradTile(rows, columns, n) for n in together if n > 1 or len(together) == 1]
    return sorted(tiles, key=lambda tile: _cost(attrs, tile, unit))


def transforms(attrs: FusedConv2D) -> list[tuple[int, int]]:
    """Return the outputs, down and across, of the transforms that fit in a row of the picture."""
    outputs = itertools.product(*((2, 4) if taps > 1 else (1,) for taps in attrs.kernel))
    return [(rows, columns) for rows, columns in outputs if columns * attrs.dilation[1] <= attrs.out_shape[3]]


def winograd_pays(attrs: FusedConv2D, unit: VectorUnit) -> bool:
    """Whether the kernel is expected to be clearly faster than the direct one on a target.

    AVX-512 and AVX2 were measured, whose whole vectors it takes, and filters of one row or column on AVX2 only; SSE and NEON
    keep the direct kernel.
    """
    if not runs_winograd(attrs) or attrs.out_layout.block != unit.lanes:
        return False
    if (unit.lanes, unit.registers) not in _MEASURED.get(attrs.kernel, ()):
        return False
    tile = winograd_tiles(attrs, unit)[0]
    if weight_bytes(attrs, tile) > MOST_WEIGHT:
        return False
    return direct_multiplications(attrs) > _GAIN * _cost(attrs, tile, unit)


def weight_bytes(attrs: FusedConv2D, tile: WinogradTile) -> int:
    """Return the bytes of transformed weights."""
    return 4 * math.prod(spectrum_of(attrs, tile)) * attrs.out_shape[1] * attrs.data_shape[1]


def direct_multiplications(attrs: FusedConv2D) -> float:
    """Return how many multiplications of vectors a direct kernel has, which leaves the rows outside the picture out."""
    _, channels, rows, width = attrs.out_shape
    taps = attrs.kernel[0]
    left_out = sum(2 * min(step * attrs.dilation[0], rows) for step in range(1, taps // 2 + 1))
    kernel_rows = taps * rows - left_out
    direct = kernel_rows * attrs.kernel[1] * width * attrs.data_shape[1] * channels / attrs.out_layout.block
    # One dot product of bfloat16 is two multiplications, and takes the time of one.
    return direct / attrs.data_layout.per_word


def pack_winograd_weight(weight: np.ndarray, attrs: FusedConv2D, tile: WinogradTile) -> np.ndarray:
    """Return transformed weights as the kernel reads them: row of frequencies, block, input channel, frequency, lane.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW.
    """
    lanes = attrs.out_layout.block
    spectrum = weight_spectrum(weight, tile)
    rows, outputs, inputs, columns = spectrum.shape
    blocked = spectrum.reshape(rows, outputs // lanes, lanes, inputs, columns).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(blocked, dtype=np.float32)


def weight_spectrum(weight: np.ndarray, tile: WinogradTile) -> np.ndarray:
    """Return transformed weights, frequency down, output channel, input channel, frequency across, in float64."""
    if tile.rows == 1:
        # The frequencies of the columns come first where the rows have none.
        weight, tile = weight.swapaxes(2, 3), replace(tile, rows=tile.columns, columns=1)
    down, across = (weight_transform(*each) for each in zip((tile.rows, tile.columns), weight.shape[2:], strict=True))
    spectrum: np.ndarray = np.einsum("yk,oikl,xl->yoix", down, weight.astype(np.float64), across)
    return spectrum


def winograd(attrs: FusedConv2D, tile: WinogradTile) -> tvm.tirx.PrimFunc:
    """Return the kernel: data, weight (as `pack_winograd_weight` orders it), bias, slope, shortcut, and the output."""
    lanes, channels = attrs.out_layout.block, attrs.out_shape[1]
    down, across = spectrum_of(attrs, tile)
    arguments = winograd_arguments(attrs, (down, channels // lanes, attrs.data_shape[1], across, lanes))

    def body(*buffers: Any) -> None:
        WinogradBody(attrs, tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def winograd_arguments(attrs: FusedConv2D, weight: tuple[int, ...]) -> Arguments:
    """Return the arguments of a kernel whose transformed weights have this shape, the output last."""
    channels, floats = attrs.out_shape[1], arithmetic(attrs.data_layout.dtype)
    arguments: Arguments = {
        "data": (attrs.data_layout.physical(attrs.data_shape), attrs.data_layout.storage),
        "weight": (weight, floats),
        "bias": ((channels,), floats),
    }
    if attrs.activation == "prelu":
        arguments["slope"] = ((channels,), floats)
    if attrs.residual == "add":
        arguments["shortcut"] = (attrs.residual_layout.physical(attrs.out_shape), attrs.residual_layout.storage)
    arguments["out"] = (attrs.out_layout.physical(attrs.out_shape), attrs.out_layout.storage)
    return arguments


def spectrum_of(attrs: FusedConv2D, tile: WinogradTile) -> tuple[int, int]:
    """Return the frequencies of a tile down and across; those of a lone row of outputs, along it, are down."""
    rows, columns = (frequencies(*each) for each in zip((tile.rows, tile.columns), attrs.kernel, strict=True))
    return (columns, rows) if tile.rows == 1 else (rows, columns)


def _extents(tile: WinogradTile) -> tuple[int, int]:
    return (tile.columns, 1) if tile.rows == 1 else (tile.rows, tile.columns)


def tiles_of_row(attrs: FusedConv2D, columns: int) -> int:
    """Return how many tiles of so many columns a row takes."""
    dilation = attrs.dilation[1]
    return -(-attrs.out_shape[3] // (columns * dilation)) * dilation


def strips(attrs: FusedConv2D, rows: int) -> int:
    """Return how many strips of so many rows a picture takes."""
    height, dilation = attrs.out_shape[2], attrs.dilation[0]
    if rows == 1:
        return height
    whole, rest = divmod(height, rows * dilation)
    return whole * dilation + min(rest, dilation)


def _cost(attrs: FusedConv2D, tile: WinogradTile, unit: VectorUnit) -> float:
    """Return what a tile is expected to cost, in multiplications of vectors."""
    spectrum = math.prod(spectrum_of(attrs, tile))
    inputs, outputs = attrs.data_shape[1], attrs.out_shape[1] // attrs.out_layout.block
    count = tiles_of_row(attrs, tile.columns)
    # Weights are loaded once for all tiles in registers, which counts as a third of a tile; as a whole one with few
    # registers: loads are what limits then.
    loaded = 1 / 3 if unit.registers >= 32 else 1
    multiplied = -(-count // tile.tiles) * (tile.tiles + loaded) * inputs * outputs
    transformed = count * (inputs / attrs.data_layout.block + outputs) / 2 * _TRANSFORM
    return strips(attrs, tile.rows) * spectrum * (multiplied + transformed)


class WinogradBody:
    """Emits the statements of one convolution.

    A filter of one row is transformed along the columns alone, by the loops that transform the rows of others: ``down`` are
    then the frequencies of the columns, and a strip is a row of the picture.
    """

    masks: ClassVar[bool] = True
    """What `activated` asks of the instruction set."""

    def __init__(self, attrs: FusedConv2D, tile: WinogradTile, buffers: dict[str, Any]) -> None:
        self.attrs = attrs
        self.tile = tile
        self.buffers = buffers
        self.lanes = attrs.out_layout.block
        self.floats = arithmetic(attrs.data_layout.dtype)
        self.flat = tile.rows == 1
        self.above = attrs.kernel[0] // 2
        self.outer, self.inner = _extents(tile)
        self.down, self.across = spectrum_of(attrs, tile)
        self.count = tiles_of_row(attrs, tile.columns)
        self.groups = -(-self.count // tile.tiles)
        self.last_top = max(self._top(strip) for strip in range(strips(attrs, tile.rows)))

    def emit(self) -> None:
        """Emit the whole kernel."""
        attrs = self.attrs
        n, channels, _, _ = attrs.out_shape
        blocks, data = channels // self.lanes, attrs.data_layout
        padded = self.groups * self.tile.tiles
        with for_rows(n, strips(attrs, self.tile.rows)) as (picture, strip):
            top = self._top(strip)
            spectrum = self._scratch(self.down, padded, attrs.data_shape[1] // data.block, self.across, data.block)
            sums = self._scratch(blocks, padded, self.inner, self.down, self.lanes)
            with T.serial(padded) as t, T.serial(attrs.data_shape[1] // data.block) as block:
                self._transform(spectrum, picture, top, t, block)
            with T.serial(self.down) as y, T.serial(blocks) as block, T.serial(self.groups) as group:
                self._multiply(spectrum, sums, y, block, group)
            with T.serial(blocks) as block:
                self._write_edges(picture, top, block)
                with T.serial(self.count) as t, T.serial(self.inner) as column:
                    self._store(sums, picture, top, t, column, block)

    def _write_edges(self, picture: Any, top: Any, block: Any) -> None:
        """Emit the zeros beside the rows of a strip."""
        for row in range(self.tile.rows):
            with self._if_stored(top, row):
                leading = (picture, block, top + row * self.attrs.dilation[0])
                write_edges(self.buffers["out"], leading, self.attrs.out_shape[3], self.attrs.out_layout)

    def _scratch(self, *shape: int) -> Any:
        return T.alloc_buffer(shape, self.floats, scope="global", layout=None)

    def _top(self, strip: Any) -> Any:
        """Return the first row of a strip."""
        dilation = self.attrs.dilation[0]
        return strip if self.flat else strip // dilation * (self.tile.rows * dilation) + strip % dilation

    def _column(self, t: Any) -> Any:
        """Return the first column of a tile; the last ones of a row are moved left until they fit."""
        dilation = self.attrs.dilation[1]
        step = self.tile.columns * dilation
        return T.min(T.floordiv(t, dilation) * step, self.attrs.out_shape[3] - step) + T.floormod(t, dilation)

    def _transform(self, spectrum: Any, picture: Any, top: Any, t: Any, block: Any) -> None:
        """Emit the transform of one block of a tile's channels."""
        layout, (step_down, step_across) = self.attrs.data_layout, self.attrs.dilation
        left = self._column(T.min(t, self.count - 1)) + layout.pad - self.attrs.padding[1]
        columns = []
        for x in range(self.across):
            column = []
            for y in range(self.down):
                if self.flat:
                    place = (picture, block, top, left + y * step_across)
                    column.append(T.bind(load(self.buffers["data"], place, layout, self.floats)))
                else:
                    column.append(self._row(picture, block, top + (y - self.above) * step_down, y, left + x * step_across))
            columns.append([T.bind(value) for value in data_transform(column, layout.block)])
        for y in range(self.down):
            for x, value in enumerate(data_transform([column[y] for column in columns], layout.block)):
                T.buffer_store(spectrum, value, [*self._place(y, x, t, block), vector(0, layout.block)])

    def _place(self, y: int, x: int, t: Any, block: Any) -> tuple[Any, ...]:
        """Return where the spectrum of the data has a frequency of one block of a tile's channels."""
        return (y, t, block, x)

    def _row(self, picture: Any, block: Any, row: Any, y: int, column: Any) -> Any:
        """Return one block of channels of the y-th row that a strip reads, zeros outside the picture."""
        height, layout = self.attrs.data_shape[2], self.attrs.data_layout
        # All rows but the first ones and those below the last tile that fits are in the picture.
        outside = y < self.above or self.last_top + (y - self.above) * self.attrs.dilation[0] >= height
        at = T.max(T.min(row, height - 1), 0) if outside else row
        value = load(self.buffers["data"], (picture, block, at, column), layout, self.floats)
        if outside:
            inside = splat(tvm.tirx.all(row >= 0, row < height), layout.block)
            value = T.Select(inside, value, zeros(self.floats, layout.block))
        return T.bind(value)

    def _multiply(self, spectrum: Any, sums: Any, y: Any, block: Any, group: Any) -> None:
        """Emit the sums over the input channels at one row of frequencies, transformed back along the row."""
        inputs, lanes = self.attrs.data_layout.block, vector(0, self.lanes)
        first = group * self.tile.tiles
        acc = Registers((self.tile.tiles, self.across), self.lanes)
        for place in tile_places(self.tile.tiles, self.across):
            acc[place] = splat(T.float32(0), self.lanes)
        with T.serial(self.attrs.data_shape[1] // inputs) as kb, T.serial(inputs) as ki:
            for t, x in tile_places(self.tile.tiles, self.across):
                weights = self.buffers["weight"][y, block, kb * inputs + ki, x, lanes]
                acc[t, x] = acc[t, x] + splat(spectrum[y, first + t, kb, x, ki], self.lanes) * weights
        for t in range(self.tile.tiles):
            found = [T.bind(acc[t, x]) for x in range(self.across)]
            for x, value in enumerate(sum_transform(self.inner, found, self.lanes)):
                T.buffer_store(sums, value, [block, first + t, x, y, lanes])

    def _store(self, sums: Any, picture: Any, top: Any, t: Any, x: Any, block: Any) -> None:
        """Emit the transform down one column of a tile, bias, activation and the stores."""
        found = [T.bind(sums[block, t, x, y, vector(0, self.lanes)]) for y in range(self.down)]
        self._store_column(sum_transform(self.outer, found, self.lanes), picture, top, t, x, block)

    def _store_column(self, values: list[Any], picture: Any, top: Any, t: Any, x: Any, block: Any) -> None:
        """Emit bias, activation and the stores of one column of a tile."""
        attrs, (step_down, step_across) = self.attrs, self.attrs.dilation
        channels = vector(block * self.lanes, self.lanes)
        left = self._column(t)
        for number, value in enumerate(values):
            row, column = (0, number) if self.flat else (number, x)
            down, across = top + row * step_down, left + column * step_across
            value = T.bind(value + self.buffers["bias"][channels])
            with self._if_stored(top, row):
                if attrs.residual == "add":
                    place, stored = (picture, block, down, across + attrs.residual_layout.pad), attrs.residual_layout
                    value = value + load(self.buffers["shortcut"], place, stored, self.floats)
                value = activated(
                    value, attrs.activation, lambda: self.buffers["slope"][channels], self.lanes, masks=self.masks
                )
                store(self.buffers["out"], value, (picture, block, down, across + attrs.out_layout.pad), attrs.out_layout)

    def _if_stored(self, top: Any, row: int) -> Any:
        height, dilation = self.attrs.out_shape[2], self.attrs.dilation[0]
        return if_inside(top + row * dilation, height, may_be_outside=self.last_top + row * dilation >= height)
