"""ENet's initial block as one kernel: the picture is read once and the concatenation never exists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import (
    Arguments,
    Registers,
    activated,
    for_rows,
    if_inside,
    prim_func,
    tile_places,
    tile_start,
)
from enet_tvm.kernels.elements import Isa, splat, store, vector, write_edges
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
    return register_tile(replace(unit, lanes=layout.block), shape[3] // 2, channels // layout.block)


def initial_tiles(shape: Shape, layout: Layout, channels: int, unit: VectorUnit) -> list[RegisterTile]:
    """Return the register tiles worth measuring, that of `initial_tile` first."""
    return register_tiles(replace(unit, lanes=layout.block), shape[3] // 2, channels // layout.block)


def initial_block(
    shape: Shape, filters: int, layout: Layout, tile: RegisterTile, pool_size: int = 2, isa: Isa = "x86"
) -> tvm.tirx.PrimFunc:
    """Return the kernel: data (NCHW), weight, bias, scale, shift, slope -> out.

    Where the output is of codes, the code of zero plus a half comes before it, and everything is in units of codes.

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
    copy_lanes = next(k for k in (16, 8, 4, 2, 1) if columns % k == 0)
    arguments: Arguments = {
        "data": (shape, "float32"),
        "weight": ((channels // group_width, 3, 3, inputs, group_width), "float32"),
        "bias": ((channels,), "float32"),
        "scale": ((inputs,), "float32"),
        "shift": ((inputs,), "float32"),
        "slope": ((channels,), "float32"),
    }
    if layout.codes:
        arguments["zero"] = ((1,), "float32")
    arguments["out"] = (layout.physical((n, channels, rows, columns)), layout.storage)

    def body(*arrays: Any) -> None:
        buffers = dict(zip(arguments, arrays, strict=True))
        data, out = buffers["data"], buffers["out"]
        with for_rows(n, rows) as (picture, row):
            # The three rows of the picture that this row needs, even and odd columns apart, so that what stride 2 reads
            # are neighbours; the odd ones after a zero.
            even = T.alloc_buffer((3, inputs, columns), "float32", scope="global", layout=None)
            odd = T.alloc_buffer((3, inputs, 1 + columns), "float32", scope="global", layout=None)
            with T.serial(3) as kh, T.serial(inputs) as channel:
                source = row * 2 + kh - 1
                T.buffer_store(odd, T.float32(0), [kh, channel, 0])
                with T.serial(columns // copy_lanes) as piece:
                    start = piece * copy_lanes
                    # The row above the picture holds anything finite: it is skipped.
                    both = data[picture, channel, T.max(source, 0), vector(start * 2, 2 * copy_lanes)]
                    T.buffer_store(even, _every_second(both, 0, copy_lanes), [kh, channel, vector(start, copy_lanes)])
                    T.buffer_store(odd, _every_second(both, 1, copy_lanes), [kh, channel, vector(1 + start, copy_lanes)])
            pooled = T.alloc_buffer((inputs, columns), "float32", scope="global", layout=None)
            pool(even, odd, buffers, pooled, row)
            with T.serial(channels // lanes) as block:
                write_edges(out, (picture, block, row), columns, layout, buffers["zero"][0] if layout.codes else 0)
            convolve(even, odd, buffers, pooled, picture, row)

    def pool(even: Any, odd: Any, buffers: dict[str, Any], pooled: Any, row: Any) -> None:
        """Pool and normalise one row of the picture, before activation."""
        with T.serial(inputs) as channel, T.serial(columns // copy_lanes) as piece:
            start = piece * copy_lanes
            best = None
            for kh in range(3 - pool_size, 3):
                # What lies outside the picture is replaced by a neighbour inside the window.
                line = T.max(kh, 1 - row) if kh == 0 else kh
                middle = even[line, channel, vector(start, copy_lanes)]
                candidates = [middle, odd[line, channel, vector(1 + start, copy_lanes)]]
                if pool_size == 3:
                    left = odd[line, channel, vector(start, copy_lanes)]
                    inside = vector(start, copy_lanes) > splat(tvm.tirx.const(0, "int32"), copy_lanes)
                    candidates.append(T.Select(inside, left, middle))
                for pixels in candidates:
                    best = pixels if best is None else T.max(best, pixels)
            value = best * splat(buffers["scale"][channel], copy_lanes) + splat(buffers["shift"][channel], copy_lanes)
            T.buffer_store(pooled, value, [channel, vector(start, copy_lanes)])

    def convolve(even: Any, odd: Any, buffers: dict[str, Any], pooled: Any, picture: Any, row: Any) -> None:
        for group in range(channels // group_width):
            with T.serial(-(-columns // tile.pixels)) as piece:
                start = tile_start(piece, tile.pixels, columns)
                acc = Registers((tile.pixels, tile.blocks), lanes)
                for i, o in tile_places(tile.pixels, tile.blocks):
                    acc[i, o] = splat(T.float32(0), lanes)
                with T.serial(3) as kh, if_inside(row * 2 + kh - 1, height, may_be_outside=True):
                    with T.serial(inputs) as channel:
                        for kw, line in enumerate((odd, even, odd)):
                            for i, o in tile_places(tile.pixels, tile.blocks):
                                pixel = splat(line[kh, channel, start + i + (kw == 2)], lanes)
                                weights = buffers["weight"][group, kh, kw, channel, vector(o * lanes, lanes)]
                                acc[i, o] = acc[i, o] + pixel * weights
                for o in range(tile.blocks):
                    for i in range(tile.pixels):
                        block = group * tile.blocks + o
                        finish(acc[i, o], buffers, pooled, (picture, block, row, start + i))

    def finish(value: Any, buffers: dict[str, Any], pooled: Any, place: tuple[Any, int, Any, Any]) -> None:
        """Emit bias, the pooled channels of this block, activation and the store of one vector."""
        picture, block, row, column = place
        own = vector(block * lanes, lanes)
        value = value + buffers["bias"][own]
        for channel in range(inputs):
            lane = filters + channel - block * lanes
            if 0 <= lane < lanes:
                mine = tvm.tirx.Shuffle([tvm.tirx.const(k == lane, "bool") for k in range(lanes)], list(range(lanes)))
                value = T.Select(mine, splat(pooled[channel, column], lanes), value)
        value = activated(value, "prelu", lambda: buffers["slope"][own], lanes)
        if layout.codes:
            value = value + splat(buffers["zero"][0], lanes)
        store(buffers["out"], value, (picture, block, row, column + layout.pad), layout)

    return prim_func(arguments, body, isa)


def _every_second(values: Any, first: int, lanes: int) -> Any:
    """Return every second of 2 x `lanes` values, from `first` on."""
    chosen = [tvm.tirx.const(first + 2 * k, "int32") for k in range(lanes)]
    return tvm.tirx.Shuffle([values], chosen)
