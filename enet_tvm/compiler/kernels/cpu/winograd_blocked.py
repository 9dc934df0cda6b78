"""Winograd's algorithm for many narrow vectors: several blocks of output channels at once, one frequency after the other.

A vector of four input channels feeds four multiplications by its elements (NEON: ``fmla v.4s, v.4s, v.s[i]``), and a vector of
weights one for each tile in registers. The frequencies of a row, which `winograd` has in registers at once, share neither: of
its instructions on NEON two fifths are loads. Here five tiles by four vectors of output channels are multiplied at once, with
80 multiplications for about 20 loads; the sums of all frequencies go through the cache, and are transformed back in both
directions at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Registers, for_rows, prim_func, tile_places, tile_start
from enet_tvm.compiler.kernels.common.convolution import convolution_features
from enet_tvm.compiler.kernels.common.elements import lane, splat, vector, zeros
from enet_tvm.compiler.kernels.cpu.register_tile import MatrixUnit, VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd import (
    MOST_WEIGHT,
    WinogradBody,
    WinogradConvolutionTemplate,
    WinogradTile,
    direct_multiplications,
    runs_winograd,
    spectrum_of,
    strips,
    tiles_of_row,
    transforms,
    weight_bytes,
    weight_spectrum,
    winograd_arguments,
)
from enet_tvm.compiler.kernels.cpu.winograd_transforms import sum_transform
from enet_tvm.compiler.ops import FusedConv2D

_DIRECT = 1.6
"""Instructions of a direct kernel for each multiplication of vectors (counted: 1.5 to 1.9 with 3x3 filters)."""
_GAIN = 1.1
"""Factor by which a direct convolution must be expected to take more instructions for it to be replaced."""
_TRANSFORM = 8
"""Instructions for each frequency of a tile and block in a transform: load, store and arithmetic (counted: 7.8 and 8.3)."""
_LOOP = 12
"""Instructions for each block of input channels beside the multiplications and loads (counted)."""


@dataclass(frozen=True)
class BlockedWinogradTile(WinogradTile):
    """The outputs of a transform, and the tiles and channels that are multiplied at once.

    Attributes
    ----------
    rows, columns : {1, 2, 4}
        Outputs of a transform; 1 in the direction in which the filter has one tap, where nothing is transformed.
    tiles, blocks : int
        Tiles, and vectors of output channels, whose sums at one frequency are in registers at once.
    """

    blocks: int


@dataclass(frozen=True)
class BlockedWinogradTemplate(WinogradConvolutionTemplate):
    """One frequency after the other, on vectors of four channels."""

    point_type: ClassVar[type] = BlockedWinogradTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: VectorUnit) -> bool:
        """Whether the kernel can compute it and is expected to take clearly fewer instructions than the direct one."""
        return blocked_winograd_pays(spec, unit)

    def points(self) -> list[BlockedWinogradTile]:
        """Return the tiles worth measuring."""
        return blocked_winograd_tiles(self.spec, self.unit)

    def kernel(self, point: BlockedWinogradTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return blocked_winograd(self.spec, point)

    def pack(self, weight: np.ndarray, point: BlockedWinogradTile) -> np.ndarray:
        """Return the transformed weights as the kernel with this tile reads them."""
        return pack_blocked_weight(weight, self.spec, point)

    def features(self, point: BlockedWinogradTile) -> list[float]:
        """Return the features of this tile."""
        width, lanes = self.spec.out_shape[3] // point.columns, self.spec.out_layout.block
        return convolution_features(self.spec, lanes, width, point.tiles, point.blocks, 1, (point.rows, point.columns))


def blocked_winograd_tiles(attrs: FusedConv2D, unit: VectorUnit) -> list[BlockedWinogradTile]:
    """Return the tiles worth measuring, the one expected to take the fewest instructions first."""
    channel_blocks = attrs.out_shape[1] // attrs.out_layout.block
    blocks = max(b for b in range(1, 5) if channel_blocks % b == 0)
    tiles = []
    for rows, columns in transforms(attrs):
        count = tiles_of_row(attrs, columns)
        most = min(unit.accumulators // blocks, count)
        narrowest: dict[int, int] = {}
        for together in range(-(-most // 2), most + 1):
            narrowest.setdefault(-(-count // together), together)
        tiles += [BlockedWinogradTile(rows, columns, together, blocks) for together in narrowest.values()]
    return sorted(tiles, key=lambda tile: _cost(attrs, tile))


def blocked_winograd_pays(attrs: FusedConv2D, unit: VectorUnit) -> bool:
    """Whether the kernel is expected to take clearly fewer instructions than the direct one on a target.

    Counted for NEON, of whose vectors it takes whole ones; narrower ones than others have with fewer registers keep the direct
    kernel.
    """
    if not runs_winograd(attrs) or attrs.out_layout.block != unit.lanes or unit.isa != "aarch64":
        return False
    tile = blocked_winograd_tiles(attrs, unit)[0]
    if weight_bytes(attrs, tile) > MOST_WEIGHT:
        return False
    direct = direct_multiplications(attrs) * _DIRECT
    # A matrix instruction makes twice the products of a dot product.
    return (direct / 2 if isinstance(unit, MatrixUnit) else direct) > _GAIN * _cost(attrs, tile)


def _cost(attrs: FusedConv2D, tile: BlockedWinogradTile) -> float:
    """Return how many instructions a tile is expected to take."""
    down, across = spectrum_of(attrs, tile)
    inputs, outputs = attrs.data_shape[1], attrs.out_shape[1] // attrs.out_layout.block
    count = tiles_of_row(attrs, tile.columns)
    groups = -(-count // tile.tiles) * (outputs // tile.blocks)
    sums = tile.tiles * tile.blocks
    # For a block of channels of the input there is a load for each tile, and half a one for each vector of weights; sums begin
    # with zero, and are stored.
    lanes = attrs.out_layout.block
    multiplied = groups * (inputs / lanes * (lanes * sums + tile.tiles + lanes / 2 * tile.blocks + _LOOP) + 2 * sums)
    transformed = count * (inputs / attrs.data_layout.block + outputs) * _TRANSFORM
    return strips(attrs, tile.rows) * down * across * (multiplied + transformed)


def pack_blocked_weight(weight: np.ndarray, attrs: FusedConv2D, tile: BlockedWinogradTile) -> np.ndarray:
    """Return transformed weights as the kernel reads them: frequency down and across, blocks, input channel, lane.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW.
    """
    width = attrs.out_layout.block * tile.blocks
    spectrum = weight_spectrum(weight, tile)
    down, outputs, inputs, across = spectrum.shape
    blocked = spectrum.reshape(down, outputs // width, width, inputs, across).transpose(0, 4, 1, 3, 2)
    return np.ascontiguousarray(blocked, dtype=np.float32)


def blocked_winograd(attrs: FusedConv2D, tile: BlockedWinogradTile) -> tvm.tirx.PrimFunc:
    """Return the kernel: data, weight (as `pack_blocked_weight` orders it), bias, slope, shortcut, and the output."""
    width = attrs.out_layout.block * tile.blocks
    weight = (*spectrum_of(attrs, tile), attrs.out_shape[1] // width, attrs.data_shape[1], width)
    arguments = winograd_arguments(attrs, weight)

    def body(*buffers: Any) -> None:
        BlockedWinogradBody(attrs, tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


class BlockedWinogradBody(WinogradBody):
    """Emits the statements of one convolution."""

    tile: BlockedWinogradTile
    masks: ClassVar[bool] = False

    def emit(self) -> None:
        """Emit the whole kernel."""
        attrs, data, blocks = self.attrs, self.attrs.data_layout, self.tile.blocks
        n, channels, _, _ = attrs.out_shape
        inputs, outputs = attrs.data_shape[1] // data.block, channels // self.lanes
        with for_rows(n, strips(attrs, self.tile.rows)) as (picture, strip):
            top = self._top(strip)
            spectrum = self._scratch(self.down, self.across, inputs, self.count, data.block)
            sums = self._scratch(self.down, self.across, outputs, self.count, self.lanes)
            with T.serial(inputs) as block, T.serial(self.count) as t:
                self._transform(spectrum, picture, top, t, block)
            with (
                T.serial(self.down) as y,
                T.serial(self.across) as x,
                T.serial(outputs // blocks) as group,
                T.serial(self.groups) as tiles,
            ):
                self._multiply_frequency(spectrum, sums, (y, x), group, tile_start(tiles, self.tile.tiles, self.count))
            with T.serial(outputs) as block:
                self._write_edges(picture, top, block)
                with T.serial(self.count) as t:
                    self._store_tile(sums, picture, top, t, block)

    def _place(self, y: int, x: int, t: Any, block: Any) -> tuple[Any, ...]:
        return (y, x, block, t)

    def _multiply_frequency(self, spectrum: Any, sums: Any, frequency: tuple[Any, Any], group: Any, first: Any) -> None:
        """Emit the sums over the input channels at one frequency."""
        inputs, (tiles, blocks) = self.attrs.data_layout.block, (self.tile.tiles, self.tile.blocks)
        acc = Registers((tiles, blocks), self.lanes, self.floats)
        for place in tile_places(tiles, blocks):
            acc[place] = zeros(self.floats, self.lanes)

        def multiply(channel: Any, values: Sequence[Any]) -> None:
            for t, o in tile_places(tiles, blocks):
                weights = self.buffers["weight"][(*frequency, group, channel, vector(o * self.lanes, self.lanes))]
                acc[t, o] = acc[t, o] + splat(values[t], self.lanes) * weights

        with T.serial(self.attrs.data_shape[1] // inputs) as kb:
            loaded = [T.bind(spectrum[(*frequency, kb, first + t, vector(0, inputs))]) for t in range(tiles)]
            for number in range(inputs):
                multiply(kb * inputs + number, [lane(block, number) for block in loaded])
        for t, o in tile_places(tiles, blocks):
            T.buffer_store(sums, acc[t, o], [*frequency, group * blocks + o, first + t, vector(0, self.lanes)])

    def _store_tile(self, sums: Any, picture: Any, top: Any, t: Any, block: Any) -> None:
        """Emit the transform of one block of a tile's sums in both directions, bias, activation and the stores."""
        lanes = vector(0, self.lanes)
        rows = []
        for y in range(self.down):
            found = [T.bind(sums[y, x, block, t, lanes]) for x in range(self.across)]
            rows.append([T.bind(value) for value in sum_transform(self.inner, found, self.lanes)])
        for x in range(self.inner):
            values = sum_transform(self.outer, [row[x] for row in rows], self.lanes)
            self._store_column(values, picture, top, t, x, block)
