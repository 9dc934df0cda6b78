"""ENet's initial block as one kernel: the picture is read once and the concatenation never exists."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import (
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
from enet_tvm.ops import Layout

Shape = tuple[int, int, int, int]


def pack_initial_weight(weight: np.ndarray, channels: int, layout: Layout, tile: RegisterTile) -> np.ndarray:
    """Return the filters (F x C x 3 x 3) as tile of channels, row, column, input channel, lane; zero for pooled channels."""
    filters, inputs = weight.shape[:2]
    full = np.zeros((channels, inputs, 3, 3), weight.dtype)
    full[:filters] = weight
    width = tile.blocks * layout.block
    ordered = full.transpose(2, 3, 1, 0).reshape(3, 3, inputs, channels // width, width)
    return np.ascontiguousarray(ordered.transpose(3, 0, 1, 2, 4))


def initial_tile(shape: Shape, layout: Layout, channels: int, unit: VectorUnit) -> RegisterTile:
    """Return the register tile of the block."""
    return register_tile(VectorUnit(layout.block, unit.registers), shape[3] // 2, channels // layout.block)


def initial_tiles(shape: Shape, layout: Layout, channels: int, unit: VectorUnit) -> list[RegisterTile]:
    """Return the register tiles worth measuring, that of `initial_tile` first."""
    return register_tiles(VectorUnit(layout.block, unit.registers), shape[3] // 2, channels // layout.block)


def initial_block(shape: Shape, filters: int, layout: Layout, tile: RegisterTile, pool_size: int = 2) -> tvm.tirx.PrimFunc:
    """Return the kernel: data (NCHW), weight, bias, scale, shift, slope -> out.

    Parameters
    ----------
    shape : tuple of int
        N x C x H x W of the picture, stored plainly.
    filters : int
        Output channels of the convolution; the C pooled channels follow them.
    layout : Layout
        Of the output; its block divides `filters` + C.
    pool_size : {2, 3}
        Window of the pooling: 2x2, or 3x3 padded by 1.
    """
    n, inputs, height, width = shape
    channels, lanes = filters + inputs, layout.block
    rows, columns = height // 2, width // 2
    group_width = tile.blocks * lanes
    copy_lanes = next(k for k in (16, 8, 4, 2) if width % k == 0)

    def body(data: Any, weight: Any, bias: Any, scale: Any, shift: Any, slope: Any, out: Any) -> None:
        with for_rows(n, rows) as (picture, row):
            # The three rows of the picture that this row needs, with a column of zeros at the left.
            lines = T.alloc_buffer((3, inputs, width + 1), "float32", scope="global", layout=None)
            with T.serial(3) as kh, T.serial(inputs) as channel:
                source = row * 2 + kh - 1
                T.buffer_store(lines, T.float32(0), [kh, channel, 0])
                with T.serial(width // copy_lanes) as piece, T.vectorized(copy_lanes) as lane:
                    column = piece * copy_lanes + lane
                    value = tvm.tirx.if_then_else(source >= 0, data[picture, channel, source, column], T.float32(0))
                    T.buffer_store(lines, value, [kh, channel, 1 + column])
            with T.serial(channels // lanes) as block:
                write_edges(out, (picture, block, row), columns, layout.pad, lanes)
            convolve(lines, weight, bias, slope, out, picture, row)
            pool(lines, scale, shift, slope, out, picture, row)

    def convolve(lines: Any, weight: Any, bias: Any, slope: Any, out: Any, picture: Any, row: Any) -> None:
        with T.serial(-(-columns // tile.pixels)) as piece, T.serial(channels // group_width) as group:
            start = tile_start(piece, tile.pixels, columns)
            acc = registers((tile.pixels, tile.blocks, lanes), "acc")
            with for_tile(tile.pixels, tile.blocks, lanes=lanes) as index:
                T.buffer_store(acc, T.float32(0), list(index))
            with T.serial(3) as kh, if_inside(row * 2 + kh - 1, height, may_be_outside=True):
                with T.serial(3) as kw, T.serial(inputs) as channel:
                    with for_tile(tile.pixels, tile.blocks, lanes=lanes) as (i, o, v):
                        pixel = lines[kh, channel, (start + i) * 2 + kw]
                        product = pixel * weight[group, kh, kw, channel, o * lanes + v]
                        T.buffer_store(acc, acc[i, o, v] + product, [i, o, v])
            with for_tile(tile.pixels, tile.blocks, lanes=lanes) as (i, o, v):
                block = group * tile.blocks + o
                index = block * lanes + v
                value = activated(acc[i, o, v] + bias[index], "prelu", lambda: slope[index])
                T.buffer_store(out, value, [picture, block, row, start + i + layout.pad, v])

    def pool(lines: Any, scale: Any, shift: Any, slope: Any, out: Any, picture: Any, row: Any) -> None:
        for channel in range(inputs):
            block, lane = divmod(filters + channel, lanes)
            with T.serial(columns) as column:
                best = None
                for kh in range(3 - pool_size, 3):
                    for kw in range(3 - pool_size, 3):
                        # What lies outside the picture is replaced by a neighbour inside the window.
                        line = T.max(kh, 1 - row) if kh == 0 else kh
                        place = T.max(column * 2 + kw, 1) if kw == 0 else column * 2 + kw
                        pixel = lines[line, channel, place]
                        best = pixel if best is None else T.max(best, pixel)
                value = activated(best * scale[channel] + shift[channel], "prelu", lambda c=channel: slope[filters + c])
                T.buffer_store(out, value, [picture, block, row, column + layout.pad, lane])

    arguments = {
        "data": (shape, "float32"),
        "weight": ((channels // group_width, 3, 3, inputs, group_width), "float32"),
        "bias": ((channels,), "float32"),
        "scale": ((inputs,), "float32"),
        "shift": ((inputs,), "float32"),
        "slope": ((channels,), "float32"),
        "out": (layout.physical((n, channels, rows, columns)), "float32"),
    }
    return prim_func(arguments, body)
