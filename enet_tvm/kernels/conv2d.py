"""Convolutions between channel-blocked tensors: one register tile, everything around it in the epilogue.

The tile holds `pixels` neighbours of a row times `blocks` vectors of output channels in registers, while the loops
over kernel rows, columns and input channels run inside. Rows outside the picture are skipped, columns outside are
zeros that the producer wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import (
    Arguments,
    activated,
    for_rows,
    for_tile,
    if_inside,
    prim_func,
    registers,
    tile_start,
    write_edges,
)
from enet_tvm.kernels.register_tile import RegisterTile, VectorUnit, register_tile, register_tiles
from enet_tvm.ops import FusedConv2D


def column_reach(attrs: FusedConv2D) -> int:
    """Return how many columns of zeros the convolution reads past either end of an input row."""
    if attrs.transposed:
        return max(abs(dx) for _, _, _, dx in transposed_taps(attrs))
    left = attrs.padding[1]
    last = (attrs.out_shape[3] - 1) * attrs.strides[1] + (attrs.kernel[1] - 1) * attrs.dilation[1] - left
    return max(left, last - (attrs.data_shape[3] - 1), 0)


def transposed_taps(attrs: FusedConv2D) -> list[tuple[tuple[int, int], int, int, int]]:
    """Return the taps of a stride-2 transposed convolution as ((phase row, phase column), tap, dy, dx).

    Output pixel (2h + a, 2w + b) is the sum over its phase's taps of input pixel (h + dy, w + dx) times the weight
    at `tap` (row-major in the kernel). So no inserted zero is ever multiplied: a quarter of the work of the
    textbook form.
    """
    taps = []
    for phase in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for kh in range(attrs.kernel[0]):
            for kw in range(attrs.kernel[1]):
                dy, odd_y = divmod(phase[0] + attrs.padding[0] - kh, 2)
                dx, odd_x = divmod(phase[1] + attrs.padding[1] - kw, 2)
                if not odd_y and not odd_x:
                    taps.append((phase, kh * attrs.kernel[1] + kw, dy, dx))
    return taps


def tile_of(attrs: FusedConv2D, unit: VectorUnit) -> RegisterTile:
    """Return the register tile of a convolution on a target."""
    return register_tile(*_tiled(attrs, unit))


def tiles_of(attrs: FusedConv2D, unit: VectorUnit) -> list[RegisterTile]:
    """Return the register tiles worth measuring, that of `tile_of` first."""
    return register_tiles(*_tiled(attrs, unit))


def _tiled(attrs: FusedConv2D, unit: VectorUnit) -> tuple[VectorUnit, int, int, int, int]:
    """Return what `register_tile` needs to know of a convolution."""
    lanes = attrs.out_layout.block
    channel_blocks = attrs.out_shape[1] // lanes
    unit = VectorUnit(lanes, unit.registers)
    if attrs.transposed:
        return unit, attrs.data_shape[3], channel_blocks, 4, 1
    return unit, attrs.out_shape[3], channel_blocks, 1, 2 if attrs.residual == "unpool" else 1


def pack_weight(weight: np.ndarray, attrs: FusedConv2D, tile: RegisterTile) -> np.ndarray:
    """Return weights in the order the kernel reads them: tile of channels, kernel row and column, input channel, lane.

    Parameters
    ----------
    weight : ndarray
        OC x IC x KH x KW, or IC x OC x KH x KW when transposed.
    """
    ordered = weight.transpose(2, 3, 0, 1) if attrs.transposed else weight.transpose(2, 3, 1, 0)
    kh, kw, inputs, outputs = ordered.shape
    width = tile.blocks * attrs.out_layout.block
    return np.ascontiguousarray(ordered.reshape(kh, kw, inputs, outputs // width, width).transpose(3, 0, 1, 2, 4))


def conv2d(attrs: FusedConv2D, tile: RegisterTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused convolution whose output is channel-blocked.

    Its arguments are data, weight (as `pack_weight` orders it), bias, then inner slope, slope, residual and window as
    far as the operator has them, and the output.
    """
    return prim_func(_arguments(attrs, tile), _Body(attrs, tile))


def _arguments(attrs: FusedConv2D, tile: RegisterTile) -> Arguments:
    channels = attrs.out_shape[1]
    width = tile.blocks * attrs.out_layout.block
    arguments: Arguments = {
        "data": (attrs.data_layout.physical(attrs.data_shape), "float32"),
        "weight": ((channels // width, *attrs.kernel, attrs.data_shape[1], width), "float32"),
        "bias": ((channels,), "float32"),
    }
    if attrs.inner_activation == "prelu":
        arguments["inner_slope"] = ((channels,), "float32")
    if attrs.activation == "prelu":
        arguments["slope"] = ((channels,), "float32")
    if attrs.residual != "none":
        n, _, height, columns = attrs.out_shape
        if attrs.residual == "unpool":
            height, columns = height // 2, columns // 2
        shape = (n, attrs.residual_channels, height, columns)
        arguments["residual"] = (attrs.residual_layout.physical(shape), "float32")
        if attrs.residual == "unpool":
            arguments["window"] = (type(attrs.residual_layout)(attrs.residual_layout.block).physical(shape), "uint8")
    arguments["out"] = (attrs.out_layout.physical(attrs.out_shape), "float32")
    return arguments


class _Body:
    """Emits the statements of one convolution."""

    def __init__(self, attrs: FusedConv2D, tile: RegisterTile) -> None:
        self.attrs = attrs
        self.tile = tile
        self.lanes = attrs.out_layout.block

    def __call__(self, *buffers: Any) -> None:
        named: dict[str, Any] = dict(zip(_arguments(self.attrs, self.tile), buffers, strict=True))
        self.data, self.weight, self.bias, self.out = (named[k] for k in ("data", "weight", "bias", "out"))
        self.inner_slope: Any = named.get("inner_slope")
        self.slope: Any = named.get("slope")
        self.residual: Any = named.get("residual")
        self.window: Any = named.get("window")
        if self.attrs.transposed:
            self._transposed()
        else:
            self._direct()

    def _direct(self) -> None:
        n, channels, rows, width = self.attrs.out_shape
        with for_rows(n, rows) as (picture, row):
            self._edges(picture, row)
            with T.serial(-(-width // self.tile.pixels)) as piece:
                start = tile_start(piece, self.tile.pixels, width)
                with T.serial(channels // (self.lanes * self.tile.blocks)) as group:
                    acc = self._zeroed(1)
                    self._accumulate(acc, picture, row, start, group)
                    self._store(acc, picture, row, piece, start, group)

    def _accumulate(self, acc: Any, picture: Any, row: Any, start: Any, group: Any) -> None:
        attrs, block = self.attrs, self.attrs.data_layout.block
        vertical = (
            attrs.padding[0] > 0
            or (attrs.out_shape[2] - 1) * attrs.strides[0] + (attrs.kernel[0] - 1) * attrs.dilation[0] >= attrs.data_shape[2]
        )
        shift = attrs.data_layout.pad - attrs.padding[1]
        with T.serial(attrs.kernel[0]) as kh:
            source = row * attrs.strides[0] + kh * attrs.dilation[0] - attrs.padding[0]
            with if_inside(source, attrs.data_shape[2], may_be_outside=vertical):
                with T.serial(attrs.kernel[1]) as kw, T.serial(attrs.data_shape[1] // block) as kb, T.serial(block) as ki:
                    with for_tile(self.tile.pixels, self.tile.blocks, lanes=self.lanes) as (i, o, v):
                        column = (start + i) * attrs.strides[1] + kw * attrs.dilation[1] + shift
                        product = (
                            self.data[picture, kb, source, column, ki]
                            * self.weight[group, kh, kw, kb * block + ki, o * self.lanes + v]
                        )
                        T.buffer_store(acc, acc[0, i, o, v] + product, [0, i, o, v])

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
                    acc = self._zeroed(4)
                    self._accumulate_phases(acc, picture, row, start, group)
                    for phase in range(4):
                        self._store_phase(acc, phase, picture, row, start, group)

    def _accumulate_phases(self, acc: Any, picture: Any, row: Any, start: Any, group: Any) -> None:
        attrs, block = self.attrs, self.attrs.data_layout.block
        taps = transposed_taps(attrs)
        for dy in sorted({tap[2] for tap in taps}):
            with if_inside(row + dy, attrs.data_shape[2], may_be_outside=dy != 0):
                with T.serial(attrs.data_shape[1] // block) as kb, T.serial(block) as ki:
                    for (a, b), tap, tap_dy, dx in taps:
                        if tap_dy != dy:
                            continue
                        kh, kw = divmod(tap, attrs.kernel[1])
                        with for_tile(self.tile.pixels, self.tile.blocks, lanes=self.lanes) as (i, o, v):
                            product = (
                                self.data[picture, kb, row + dy, start + i + dx + attrs.data_layout.pad, ki]
                                * self.weight[group, kh, kw, kb * block + ki, o * self.lanes + v]
                            )
                            T.buffer_store(acc, acc[2 * a + b, i, o, v] + product, [2 * a + b, i, o, v])

    def _zeroed(self, phases: int) -> Any:
        acc = registers((phases, self.tile.pixels, self.tile.blocks, self.lanes), "acc")
        with for_tile(phases, self.tile.pixels, self.tile.blocks, lanes=self.lanes) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        return acc

    def _edges(self, picture: Any, row: Any) -> None:
        attrs = self.attrs
        if attrs.out_layout.pad:
            with T.serial(attrs.out_shape[1] // self.lanes) as block:
                write_edges(self.out, (picture, block, row), attrs.out_shape[3], attrs.out_layout.pad, self.lanes)

    def _store(self, acc: Any, picture: Any, row: Any, piece: Any, start: Any, group: Any) -> None:
        if self.attrs.residual != "unpool":
            with for_tile(self.tile.pixels, self.tile.blocks, lanes=self.lanes) as (i, o, v):
                self._finish(acc[0, i, o, v], picture, row, start + i, group, o, v)
            return
        # Two neighbours share a window: written so that its index and its value are loaded once for both.
        half = tile_start(piece, self.tile.pixels // 2, self.attrs.out_shape[3] // 2)
        with for_tile(self.tile.pixels // 2, 2, self.tile.blocks, lanes=self.lanes) as (i, b, o, v):
            block = group * self.tile.blocks + o
            position = T.cast(T.floormod(row, 2) * 2 + b, "uint8")
            layout = self.attrs.residual_layout
            value = self.residual[picture, block, T.floordiv(row, 2), half + i + layout.pad, v]
            hit = self.window[picture, block, T.floordiv(row, 2), half + i, v] == position
            unpooled = T.Select(hit, value, T.float32(0))
            self._finish(acc[0, i * 2 + b, o, v], picture, row, half * 2 + i * 2 + b, group, o, v, unpooled)

    def _store_phase(self, acc: Any, phase: int, picture: Any, row: Any, start: Any, group: Any) -> None:
        with for_tile(self.tile.pixels, self.tile.blocks, lanes=self.lanes) as (i, o, v):
            value = acc[phase, i, o, v]
            self._finish(value, picture, row * 2 + phase // 2, (start + i) * 2 + phase % 2, group, o, v)

    def _finish(
        self, value: Any, picture: Any, row: Any, column: Any, group: Any, o: Any, v: Any, unpooled: Any = None
    ) -> None:
        """Emit bias, shortcut, activation and the store of one vector."""
        attrs = self.attrs
        block = group * self.tile.blocks + o
        channel = block * self.lanes + v
        value = activated(value + self.bias[channel], attrs.inner_activation, lambda: self.inner_slope[channel])
        if unpooled is not None:
            value = value + unpooled
        elif attrs.residual == "add":
            value = value + self.residual[picture, block, row, column + attrs.residual_layout.pad, v]
        elif attrs.residual == "pad":
            known = attrs.residual_channels // self.lanes
            shortcut = self.residual[picture, T.min(block, known - 1), row, column + attrs.residual_layout.pad, v]
            value = value + T.Select(block < known, shortcut, T.float32(0))
        value = activated(value, attrs.activation, lambda: self.slope[channel])
        T.buffer_store(self.out, value, [picture, block, row, column + attrs.out_layout.pad, v])
