"""Max pooling with window indices, and unpooling on its own, between channel-blocked tensors."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.kernels.building import for_rows, prim_func
from enet_tvm.ops import Layout

Shape = tuple[int, int, int, int]


def max_pool2d_with_window(shape: Shape, layout: Layout) -> tvm.tirx.PrimFunc:
    """Return the kernel of 2x2 stride-2 pooling: data -> maxima and window indices, both unpadded.

    Parameters
    ----------
    shape : tuple of int
        Logical N x C x H x W of the input, stored in `layout`.
    """
    n, channels, height, width = shape
    pooled = Layout(layout.block).physical((n, channels, height // 2, width // 2))

    def body(data: Any, out: Any, window: Any) -> None:
        with for_rows(n, height // 2) as (picture, row):
            with T.serial(channels // layout.block) as block, T.serial(width // 2) as column:
                with T.vectorized(layout.block) as lane:
                    best = data[picture, block, row * 2, column * 2 + layout.pad, lane]
                    place: Any = tvm.tirx.const(0, "uint8")
                    for position in (1, 2, 3):
                        a, b = divmod(position, 2)
                        candidate = data[picture, block, row * 2 + a, column * 2 + b + layout.pad, lane]
                        # Strictly greater: the first maximum wins, as in PyTorch.
                        place = T.Select(candidate > best, tvm.tirx.const(position, "uint8"), place)
                        best = T.max(best, candidate)
                    T.buffer_store(out, best, [picture, block, row, column, lane])
                    T.buffer_store(window, place, [picture, block, row, column, lane])

    arguments = {"data": (layout.physical(shape), "float32"), "out": (pooled, "float32"), "window": (pooled, "uint8")}
    return prim_func(arguments, body)
