"""Max pooling and unpooling that exchange the maximum's place inside its 2x2 window.

PyTorch's indices are places in the whole plane. A window index (0 to 3, row by row; the first maximum wins, as
in PyTorch) says the same in a byte and lets unpooling be a comparison instead of a scatter. The stock importer's
``max_pool2d_with_indices`` returns zeros for indices (TVM 0.27, ``base_fx_graph_translator.py``), which is wrong
without an error; nothing here goes through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import tvm
from tvm import relax, te
from tvm.tirx import Select, const

from enet_tvm.compiler.ops.layout import PLANAR, Layout, Shape, logical_shape
from enet_tvm.compiler.ops.registry import register_op


@dataclass(frozen=True)
class MaxUnpool2D:
    """What ``enet.max_unpool2d`` computes.

    Attributes
    ----------
    data_shape : tuple of int
        Logical N x C x H x W of the input.
    output_size : (int, int)
        Height and width of the unpooled plane: twice the input's, or one more, which stays zero.
    data_layout, out_layout : Layout
        Layouts of input and output; the window indices lie as an unpadded `data_layout`.
    """

    data_shape: Shape
    output_size: tuple[int, int]
    data_layout: Layout = PLANAR
    out_layout: Layout = PLANAR

    layers: ClassVar[tuple[str, ...]] = ()
    operators: ClassVar[list[str]] = ["max_unpool2d"]
    multiply_adds: ClassVar[int] = 0

    @classmethod
    def from_call(cls, call: relax.Call) -> MaxUnpool2D:
        """Return what a call of the operator computes."""
        height, width = (int(v) for v in call.attrs["output_size"])
        data, out = (Layout.from_attr(call.attrs[key]) for key in ("data_layout", "out_layout"))
        return cls(logical_shape(call.args[0], data), (height, width), data, out)

    @property
    def out_shape(self) -> Shape:
        """Logical N x C x `output_size` of the output."""
        return (*self.data_shape[:2], *self.output_size)


@dataclass(frozen=True)
class MaxPool2DWithWindow:
    """What ``enet.max_pool2d_with_window`` computes.

    Attributes
    ----------
    data_shape : tuple of int
        Logical N x C x H x W of the input.
    data_layout, out_layout : Layout
        Layouts of input and maxima; the window indices lie as an unpadded `out_layout`.
    """

    data_shape: Shape
    data_layout: Layout = PLANAR
    out_layout: Layout = PLANAR

    layers: ClassVar[tuple[str, ...]] = ()
    operators: ClassVar[list[str]] = ["max_pool2d_with_window"]
    multiply_adds: ClassVar[int] = 0

    @classmethod
    def from_call(cls, call: relax.Call) -> MaxPool2DWithWindow:
        """Return what a call of the operator computes."""
        data, out = (Layout.from_attr(call.attrs[key]) for key in ("data_layout", "out_layout"))
        return cls(logical_shape(call.args[0], data), data, out)

    @property
    def out_shape(self) -> Shape:
        """Logical N x C x H/2 x W/2 of the maxima, and of the window indices."""
        n, channels, height, width = self.data_shape
        return n, channels, height // 2, width // 2


def _infer_pool(call: relax.Call) -> relax.TupleType:
    attrs = MaxPool2DWithWindow.from_call(call)
    maxima = relax.TensorType(attrs.out_layout.physical(attrs.out_shape), call.args[0].ty.dtype)
    return relax.TupleType([maxima, relax.TensorType(attrs.out_layout.window().physical(attrs.out_shape), "uint8")])


def _infer_unpool(call: relax.Call) -> relax.TensorType:
    attrs = MaxUnpool2D.from_call(call)
    return relax.TensorType(attrs.out_layout.physical(attrs.out_shape), call.args[0].ty.dtype)


def te_max_pool2d_with_window(x: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
    """Return the 2x2 stride-2 maxima (N x C x H//2 x W//2) and their window indices (uint8, same shape)."""
    n, c, h, w = (int(s) for s in x.shape)

    def body(i: Any, q: Any, y: Any, z: Any) -> tuple[Any, Any]:
        best, place = x[i, q, 2 * y, 2 * z], const(0, "uint8")
        for position in (1, 2, 3):
            candidate = x[i, q, 2 * y + position // 2, 2 * z + position % 2]
            place = Select(candidate > best, const(position, "uint8"), place)
            best = Select(candidate > best, candidate, best)
        return best, place

    return te.compute((n, c, h // 2, w // 2), body, name="max_pool2d_with_window")


def te_max_unpool2d(x: te.Tensor, window: te.Tensor, output_size: tuple[int, int]) -> te.Tensor:
    """Return `x` (N x C x H x W) spread over `output_size`, zero except where `window` points."""
    n, c, h, w = (int(s) for s in x.shape)

    def element(i: Any, q: Any, y: Any, z: Any) -> Any:
        row, column = tvm.tirx.floordiv(y, 2), tvm.tirx.floordiv(z, 2)
        position = (tvm.tirx.floormod(y, 2) * 2 + tvm.tirx.floormod(z, 2)).astype("uint8")
        value = tvm.tirx.if_then_else(window[i, q, row, column] == position, x[i, q, row, column], const(0, x.dtype))
        if output_size == (2 * h, 2 * w):
            return value
        # An odd plane's last row or column belongs to no window.
        return tvm.tirx.if_then_else(tvm.tirx.all(row < h, column < w), value, const(0, x.dtype))

    return te.compute((n, c, *output_size), element, name="max_unpool2d")


def _legalize_pool(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return builder.call_te(te_max_pool2d_with_window, call.args[0], primfunc_name_hint="max_pool2d_with_window")


def _legalize_unpool(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    size = MaxUnpool2D.from_call(call).output_size
    return builder.call_te(te_max_unpool2d, *call.args, size, primfunc_name_hint="max_unpool2d")


_POOL = register_op(
    "enet.max_pool2d_with_window", "2x2 stride-2 maxima and their places in the window", _infer_pool, _legalize_pool
)
_UNPOOL = register_op("enet.max_unpool2d", "The inverse of pooling, by window index", _infer_unpool, _legalize_unpool)


def max_pool2d_with_window(x: relax.Expr, layout: Layout = PLANAR, out_layout: Layout | None = None) -> relax.Call:
    """Return the pair (2x2 stride-2 maxima, window indices as uint8) of `x`.

    `x` is stored in `layout`, the maxima in `out_layout`, which by default is that without padding, as the indices are.
    """
    out_layout = replace(layout, pad=0) if out_layout is None else out_layout
    attrs = tvm.ir.make_node("ir.DictAttrs", data_layout=layout.to_attr(), out_layout=out_layout.to_attr())
    return relax.Call(_POOL, [x], attrs)


def max_unpool2d(
    x: relax.Expr,
    window: relax.Expr,
    output_size: tuple[int, int],
    layout: Layout = PLANAR,
    out_layout: Layout = PLANAR,
) -> relax.Call:
    """Return `x` (N x C x H x W) unpooled to N x C x `output_size` by the window indices of the pooling.

    `x` is stored in `layout`, `window` as that without padding, and the result in `out_layout`, of the same block.
    """
    attrs = tvm.ir.make_node(
        "ir.DictAttrs", output_size=list(output_size), data_layout=layout.to_attr(), out_layout=out_layout.to_attr()
    )
    return relax.Call(_UNPOOL, [x, window], attrs)
