"""Convolutions that leave the blocked layout: channel-blocked input, plain NCHW output, pixels in the lanes.

The last layer of a segmentation network has as many channels as there are classes, which is no multiple of
anything, and its output is the largest tensor of all. So here a vector holds neighbouring pixels of one channel:
no lane is wasted, and logits are stored as the caller wants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import Arguments, for_rows, for_tile, prim_func, registers, tile_start
from enet_tvm.kernels.conv2d import transposed_taps
from enet_tvm.kernels.register_tile import VectorUnit
from enet_tvm.ops import FusedConv2D

Tap = tuple[int, int, int, int]
"""Phase column, tap, input row offset, input column offset."""


@dataclass(frozen=True)
class PlanarTile:
    """The part of the output that is computed at once.

    Attributes
    ----------
    lanes : int
        Neighbours in a row of the input, one vector.
    channels : int
        Output channels.
    """

    lanes: int
    channels: int


def planar_tile(attrs: FusedConv2D, unit: VectorUnit) -> PlanarTile:
    """Return the tile of a convolution: as few tiles of output channels as the registers allow, all of one size."""
    most = max(1, unit.accumulators // _columns(attrs))
    tiles = -(-attrs.out_shape[1] // most)
    return PlanarTile(_widest(attrs, unit), -(-attrs.out_shape[1] // tiles))


def planar_tiles(attrs: FusedConv2D, unit: VectorUnit) -> list[PlanarTile]:
    """Return the tiles worth measuring, that of `planar_tile` first."""
    default, widest = planar_tile(attrs, unit), _widest(attrs, unit)
    most = min(attrs.out_shape[1], (unit.accumulators + unit.registers // 8) // _columns(attrs))
    # Of the tiles that cut the channels into as many parts, the smallest computes the fewest twice.
    parts = sorted({-(-attrs.out_shape[1] // channels) for channels in range(max(1, most // 4), most + 1)})
    tiles = [PlanarTile(lanes, -(-attrs.out_shape[1] // n)) for lanes in (widest, max(2, widest // 2)) for n in parts]
    return list(dict.fromkeys([default, *tiles]))


def _columns(attrs: FusedConv2D) -> int:
    """Return how many columns of the output a column of the input makes."""
    return 2 if attrs.transposed else 1


def _widest(attrs: FusedConv2D, unit: VectorUnit) -> int:
    """Return the longest vector that fits a row."""
    lanes = unit.lanes
    while lanes > attrs.data_shape[3]:
        lanes //= 2
    return lanes


def pack_planar_weight(weight: np.ndarray, attrs: FusedConv2D) -> np.ndarray:
    """Return weights as kernel position x input channel x output channel."""
    ordered = weight.transpose(2, 3, 0, 1) if attrs.transposed else weight.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(ordered.reshape(-1, *ordered.shape[2:]))


def planar_conv2d(attrs: FusedConv2D, unit: VectorUnit, tile: PlanarTile | None = None) -> tvm.tirx.PrimFunc:
    """Return the kernel of a convolution with stride 1, or a transposed one with stride 2, and NCHW output.

    Its arguments are data, weight (as `pack_planar_weight` orders it), bias, the slope of a PReLU, and the output.
    """
    channels = attrs.out_shape[1]
    arguments: Arguments = {
        "data": (attrs.data_layout.physical(attrs.data_shape), "float32"),
        "weight": ((attrs.kernel[0] * attrs.kernel[1], attrs.data_shape[1], channels), "float32"),
        "bias": ((channels,), "float32"),
    }
    if attrs.activation == "prelu":
        arguments["slope"] = ((channels,), "float32")
    arguments["out"] = (attrs.out_shape, "float32")

    def body(*buffers: Any) -> None:
        _Planar(attrs, tile or planar_tile(attrs, unit), dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


class _Planar:
    def __init__(self, attrs: FusedConv2D, tile: PlanarTile, buffers: dict[str, Any]) -> None:
        self.attrs = attrs
        self.buffers = buffers
        self.lanes, self.channels = tile.lanes, tile.channels
        self.columns = _columns(attrs)
        self.phases = self._phases()
        offsets = [tap[3] for taps in self.phases.values() for tap in taps]
        self.margin = max(0, -min(offsets))
        self.reach = max(0, *offsets)
        self.rows = sorted({tap[2] for taps in self.phases.values() for tap in taps})

    def _phases(self) -> dict[int, list[Tap]]:
        """Return for each output row that an input row makes the taps it takes."""
        attrs = self.attrs
        if attrs.transposed:
            phases: dict[int, list[Tap]] = {0: [], 1: []}
            for (a, b), tap, dy, dx in transposed_taps(attrs):
                phases[a].append((b, tap, dy, dx))
            return phases
        taps = [
            (0, kh * attrs.kernel[1] + kw, kh * attrs.dilation[0] - attrs.padding[0], kw * attrs.dilation[1] - attrs.padding[1])
            for kh in range(attrs.kernel[0])
            for kw in range(attrs.kernel[1])
        ]
        return {0: taps}

    def emit(self) -> None:
        n, inputs, rows, width = self.attrs.data_shape
        columns = self.margin + width + self.reach
        with for_rows(n, rows) as (picture, row):
            lines = T.alloc_buffer((len(self.rows), inputs, columns), "float32", scope="global", layout=None)
            for place, dy in enumerate(self.rows):
                self._transpose_row(lines, place, picture, row, dy)
            for phase, taps in self.phases.items():
                with T.serial(-(-self.attrs.out_shape[1] // self.channels)) as tile:
                    first = tile_start(tile, self.channels, self.attrs.out_shape[1])
                    with T.serial(-(-width // self.lanes)) as piece:
                        start = tile_start(piece, self.lanes, width)
                        self._tile(lines, picture, row * len(self.phases) + phase, first, start, taps)

    def _transpose_row(self, lines: Any, place: int, picture: Any, row: Any, dy: int) -> None:
        """Copy one row of the input, channels apart, zeros around it and for a row outside the picture."""
        _, inputs, rows, width = self.attrs.data_shape
        layout, data = self.attrs.data_layout, self.buffers["data"]
        with T.serial(inputs // layout.block) as block, T.serial(layout.block) as inner:
            channel = block * layout.block + inner
            for edge in [*range(self.margin), *range(self.margin + width, self.margin + width + self.reach)]:
                T.buffer_store(lines, T.float32(0), [place, channel, edge])
            with T.serial(-(-width // self.lanes)) as piece:
                start = tile_start(piece, self.lanes, width)
                with T.vectorized(self.lanes) as lane:
                    value = data[picture, block, row + dy, start + lane + layout.pad, inner]
                    if dy:
                        inside = tvm.tirx.all(row + dy >= 0, row + dy < rows)
                        value = tvm.tirx.if_then_else(inside, value, T.float32(0))
                    T.buffer_store(lines, value, [place, channel, self.margin + start + lane])

    def _tile(self, lines: Any, picture: Any, out_row: Any, first: Any, start: Any, taps: list[Tap]) -> None:
        weight = self.buffers["weight"]
        acc = registers((self.columns, self.channels, self.lanes), "acc")
        with for_tile(self.columns, self.channels, lanes=self.lanes) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        with T.serial(self.attrs.data_shape[1]) as channel:
            for column, tap, dy, dx in taps:
                with for_tile(self.channels, lanes=self.lanes) as (o, v):
                    pixel = lines[self.rows.index(dy), channel, self.margin + start + dx + v]
                    T.buffer_store(acc, acc[column, o, v] + pixel * weight[tap, channel, first + o], [column, o, v])
        with T.unroll(self.channels) as o:
            self._store_vector(acc, o, picture, out_row, first + o, start)

    def _store_vector(self, acc: Any, o: Any, picture: Any, out_row: Any, channel: Any, start: Any) -> None:
        """Store one channel's vector; the two columns of a transposed convolution are interleaved first."""
        lanes, bias, slope = self.lanes, self.buffers["bias"], self.buffers.get("slope")
        vectors = []
        for column in range(self.columns):
            value = acc[column, o, tvm.tirx.Ramp(0, 1, lanes)] + T.Broadcast(bias[channel], lanes)
            vectors.append(_activated_vector(value, self.attrs.activation, slope, channel, lanes))
        if self.columns == 1:
            T.buffer_store(self.buffers["out"], vectors[0], [picture, channel, out_row, tvm.tirx.Ramp(start, 1, lanes)])
            return
        order = [lane + column * lanes for lane in range(lanes) for column in range(2)]
        merged = tvm.tirx.Shuffle(vectors, [tvm.tirx.const(k, "int32") for k in order])
        T.buffer_store(self.buffers["out"], merged, [picture, channel, out_row, tvm.tirx.Ramp(start * 2, 1, 2 * lanes)])


def _activated_vector(value: Any, activation: str, slope: Any, channel: Any, lanes: int) -> Any:
    zero = T.Broadcast(T.float32(0), lanes)
    if activation == "relu":
        return T.max(value, zero)
    if activation == "prelu":
        return T.Select(value > zero, value, value * T.Broadcast(slope[channel], lanes))
    return value
