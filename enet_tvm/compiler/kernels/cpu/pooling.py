"""Max pooling with window indices, and unpooling on its own, between channel-blocked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import Arguments, for_rows, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.elements import arithmetic, fill, load, splat, store, vector, write_edges
from enet_tvm.compiler.kernels.common.pooling import PoolingTemplate
from enet_tvm.compiler.kernels.common.template import OnlyPoint
from enet_tvm.compiler.kernels.cpu.packing import rounding_zero
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import Layout, MaxPool2DWithWindow, MaxUnpool2D
from enet_tvm.compiler.quantisation.codes import Codes

Shape = tuple[int, int, int, int]


class _BlockedPooling(PoolingTemplate):
    """A pooling or unpooling between channel-blocked tensors."""

    @classmethod
    def covers(cls, spec: MaxPool2DWithWindow | MaxUnpool2D, unit: VectorUnit) -> bool:
        """Whether the input is blocked."""
        return spec.data_layout.block > 0

    def operands(self, point: OnlyPoint, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return the data, of an unpooling the window indices and, where the data are codes, the code of zero plus a half."""
        return [*arguments, *([constant(rounding_zero(own))] if self.spec.out_layout.codes else [])]


@dataclass(frozen=True)
class MaxPool2DTemplate(_BlockedPooling):
    """2x2 max pooling with window indices between channel-blocked tensors.

    Attributes
    ----------
    spec : MaxPool2DWithWindow
        The pooling that it computes.
    """

    spec: MaxPool2DWithWindow
    spec_type: ClassVar[type] = MaxPool2DWithWindow

    def kernel(self, point: OnlyPoint) -> tvm.tirx.PrimFunc:
        """Return the kernel."""
        return max_pool2d_with_window(self.spec.data_shape, self.spec.data_layout, self.spec.out_layout)


@dataclass(frozen=True)
class MaxUnpool2DTemplate(_BlockedPooling):
    """Unpooling by window indices between channel-blocked tensors.

    Attributes
    ----------
    spec : MaxUnpool2D
        The unpooling that it computes.
    """

    spec: MaxUnpool2D
    spec_type: ClassVar[type] = MaxUnpool2D

    def kernel(self, point: OnlyPoint) -> tvm.tirx.PrimFunc:
        """Return the kernel."""
        spec = self.spec
        return max_unpool2d(spec.data_shape, spec.data_layout, spec.output_size, spec.out_layout)


def max_pool2d_with_window(shape: Shape, layout: Layout, out_layout: Layout) -> tvm.tirx.PrimFunc:
    """Return the kernel of 2x2 stride-2 pooling: data -> maxima, and window indices without padding.

    Where the maxima are codes, those of the data, the code of zero plus a half comes before them.

    The last row or column of an odd plane belongs to no window.

    Parameters
    ----------
    shape : tuple of int
        Logical N x C x H x W of the input, stored in `layout`.
    out_layout : Layout
        Layout of the maxima, of the same block and dtype.
    """
    n, channels, height, width = shape
    pooled = (n, channels, height // 2, width // 2)
    lanes = layout.block
    arguments: Arguments = {"data": (layout.physical(shape), layout.storage)}
    if out_layout.codes:
        arguments["zero"] = ((1,), "float32")
    arguments["out"] = (out_layout.physical(pooled), out_layout.storage)
    arguments["window"] = (out_layout.window().physical(pooled), "uint8")

    def body(data: Any, *rest: Any) -> None:
        *zero, out, window = rest
        with for_rows(n, height // 2) as (picture, row):
            with T.serial(channels // lanes) as block:
                write_edges(out, (picture, block, row), width // 2, out_layout, zero[0][0] if zero else 0)
                with T.serial(width // 2) as column:

                    def pixel(a: int, b: int, block: Any = block, column: Any = column) -> Any:
                        place = (picture, block, row * 2 + a, column * 2 + b + layout.pad)
                        return load(data, place, layout, arithmetic(layout.dtype))

                    best = pixel(0, 0)
                    place = splat(tvm.tirx.const(0, "uint8"), lanes)
                    for position in (1, 2, 3):
                        candidate = pixel(*divmod(position, 2))
                        # Strictly greater: the first maximum wins, as in PyTorch.
                        place = T.Select(candidate > best, splat(tvm.tirx.const(position, "uint8"), lanes), place)
                        best = T.max(best, candidate)
                    store(out, best, (picture, block, row, column + out_layout.pad), out_layout)
                    T.buffer_store(window, place, [picture, block, row, column, vector(0, lanes)])

    return prim_func(arguments, body)


def max_unpool2d(shape: Shape, layout: Layout, output_size: tuple[int, int], out_layout: Layout) -> tvm.tirx.PrimFunc:
    """Return the kernel of unpooling by window indices: data, window -> out.

    Where the data are codes, the code of zero plus a half comes before the output.

    Parameters
    ----------
    shape : tuple of int
        Logical N x C x H x W of the input, stored in `layout`; its window indices are unpadded.
    output_size : (int, int)
        2H and 2W, or one more of either: a row or column of zeros.
    out_layout : Layout
        Layout of the output, of the same block and dtype.
    """
    n, channels, rows, columns = shape
    height, width = output_size
    lanes = layout.block

    arguments: Arguments = {
        "data": (layout.physical(shape), layout.storage),
        "window": (layout.window().physical(shape), "uint8"),
    }
    if out_layout.codes:
        arguments["zero"] = ((1,), "float32")
    arguments["out"] = (out_layout.physical((n, channels, height, width)), out_layout.storage)

    def body(data: Any, window: Any, *rest: Any) -> None:
        *given, out = rest
        floats = arithmetic(layout.dtype)
        zero = given[0][0] if given else tvm.tirx.const(0, floats)

        def spread(picture: Any, block: Any, row: Any) -> None:
            for a in (0, 1):
                write_edges(out, (picture, block, row * 2 + a), width, out_layout, zero)
                fill(out, (picture, block, row * 2 + a), out_layout.pad + columns * 2, width - columns * 2, out_layout, zero)
            with T.serial(columns) as column:
                value = load(data, (picture, block, row, column + layout.pad), layout, floats)
                place = window[picture, block, row, column, vector(0, lanes)]
                for position in range(4):
                    a, b = divmod(position, 2)
                    hit = place == splat(tvm.tirx.const(position, "uint8"), lanes)
                    spot = (picture, block, row * 2 + a, column * 2 + b + out_layout.pad)
                    store(out, T.Select(hit, value, splat(zero, lanes)), spot, out_layout)

        with for_rows(n, -(-height // 2)) as (picture, row), T.serial(channels // lanes) as block:
            if height % 2 == 0:
                spread(picture, block, row)
                return
            with T.If(row < rows):
                with T.Then():
                    spread(picture, block, row)
                with T.Else():
                    fill(out, (picture, block, height - 1), 0, width + 2 * out_layout.pad, out_layout, zero)

    return prim_func(arguments, body)
