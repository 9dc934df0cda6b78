"""Max pooling with window indices, and unpooling on its own, between channel-blocked tensors."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import for_rows, prim_func, write_edges
from enet_tvm.ops import Layout

Shape = tuple[int, int, int, int]


def max_pool2d_with_window(shape: Shape, layout: Layout, out_layout: Layout) -> tvm.tirx.PrimFunc:
    """Return the kernel of 2x2 stride-2 pooling: data -> maxima, and window indices without padding.

    The last row or column of an odd plane belongs to no window.

    Parameters
    ----------
    shape : tuple of int
        Logical N x C x H x W of the input, stored in `layout`.
    out_layout : Layout
        Of the maxima, of the same block.
    """
    n, channels, height, width = shape
    pooled = (n, channels, height // 2, width // 2)

    def body(data: Any, out: Any, window: Any) -> None:
        with for_rows(n, height // 2) as (picture, row):
            with T.serial(channels // layout.block) as block:
                write_edges(out, (picture, block, row), width // 2, out_layout.pad, layout.block)
                with T.serial(width // 2) as column, T.vectorized(layout.block) as lane:
                    best = data[picture, block, row * 2, column * 2 + layout.pad, lane]
                    place: Any = tvm.tirx.const(0, "uint8")
                    for position in (1, 2, 3):
                        a, b = divmod(position, 2)
                        candidate = data[picture, block, row * 2 + a, column * 2 + b + layout.pad, lane]
                        # Strictly greater: the first maximum wins, as in PyTorch.
                        place = T.Select(candidate > best, tvm.tirx.const(position, "uint8"), place)
                        best = T.max(best, candidate)
                    T.buffer_store(out, best, [picture, block, row, column + out_layout.pad, lane])
                    T.buffer_store(window, place, [picture, block, row, column, lane])

    arguments = {
        "data": (layout.physical(shape), "float32"),
        "out": (out_layout.physical(pooled), "float32"),
        "window": (Layout(layout.block).physical(pooled), "uint8"),
    }
    return prim_func(arguments, body)


def max_unpool2d(shape: Shape, layout: Layout, output_size: tuple[int, int], out_layout: Layout) -> tvm.tirx.PrimFunc:
    """Return the kernel of unpooling by window indices: data, window -> out.

    Parameters
    ----------
    shape : tuple of int
        Logical N x C x H x W of the input, stored in `layout`; its window indices are unpadded.
    output_size : (int, int)
        2H and 2W, or one more of either: a row or column of zeros.
    out_layout : Layout
        Of the output, of the same block.
    """
    n, channels, rows, columns = shape
    height, width = output_size
    lanes = layout.block

    def body(data: Any, window: Any, out: Any) -> None:
        def clear(picture: Any, block: Any, row: Any, start: int, stop: int) -> None:
            with T.serial(stop - start) as column, T.vectorized(lanes) as lane:
                T.buffer_store(out, T.float32(0), [picture, block, row, start + column, lane])

        def spread(picture: Any, block: Any, row: Any) -> None:
            for a in (0, 1):
                write_edges(out, (picture, block, row * 2 + a), width, out_layout.pad, lanes)
                if width % 2:
                    clear(picture, block, row * 2 + a, out_layout.pad + width - 1, out_layout.pad + width)
            with T.serial(columns) as column:
                for position in range(4):
                    a, b = divmod(position, 2)
                    with T.vectorized(lanes) as lane:
                        hit = window[picture, block, row, column, lane] == tvm.tirx.const(position, "uint8")
                        value = T.Select(hit, data[picture, block, row, column + layout.pad, lane], T.float32(0))
                        T.buffer_store(out, value, [picture, block, row * 2 + a, column * 2 + b + out_layout.pad, lane])

        with for_rows(n, -(-height // 2)) as (picture, row), T.serial(channels // lanes) as block:
            if height % 2 == 0:
                spread(picture, block, row)
                return
            with T.If(row < rows):
                with T.Then():
                    spread(picture, block, row)
                with T.Else():
                    clear(picture, block, height - 1, 0, width + 2 * out_layout.pad)

    arguments = {
        "data": (layout.physical(shape), "float32"),
        "window": (Layout(lanes).physical(shape), "uint8"),
        "out": (out_layout.physical((n, channels, height, width)), "float32"),
    }
    return prim_func(arguments, body)
