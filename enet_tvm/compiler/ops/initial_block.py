"""ENet's initial block, or another downsampler of its kind: convolution beside pooling, concatenated, normalised, activated."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from enet_tvm.compiler.ops.layout import PLANAR, Layout, Shape, logical_shape
from enet_tvm.compiler.ops.registry import register_op, static_shape


@dataclass(frozen=True)
class InitialBlockAttrs:
    """What ``enet.initial_block`` computes.

    Attributes
    ----------
    data_shape : tuple of int
        Logical N x C x H x W of the input, H and W even.
    filters : int
        Output channels of the convolution; the C pooled channels follow them.
    pool : {2, 3}
        Height and width of the window of the pooling, with stride 2: 2x2, or 3x3 padded by 1.
    data_layout, out_layout : Layout
        Layouts of input and output.
    layers : tuple of str
        The sub-modules of the network that it computes; the last one's result is its output.
    """

    data_shape: Shape
    filters: int
    pool: int = 2
    data_layout: Layout = PLANAR
    out_layout: Layout = PLANAR
    layers: tuple[str, ...] = ()

    @classmethod
    def from_call(cls, call: relax.Call) -> InitialBlockAttrs:
        """Return what a call of the operator computes."""
        data, out = (Layout.from_attr(call.attrs[key]) for key in ("data_layout", "out_layout"))
        return cls(
            logical_shape(call.args[0], data),
            static_shape(call.args[1])[0],
            int(call.attrs["pool"]),
            data,
            out,
            tuple(str(name) for name in call.attrs["layers"]),
        )

    @property
    def out_shape(self) -> Shape:
        """Logical N x (F + C) x H/2 x W/2 of the output."""
        n, channels, height, width = self.data_shape
        return n, self.filters + channels, height // 2, width // 2

    @property
    def operators(self) -> list[str]:
        """Names of the operators that it computes, in order, as TVM calls them."""
        return ["conv2d", "bias_add", "max_pool2d", "multiply", "add", "concat", "prelu"]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the convolution alone, padding counted in."""
        n, channels, height, width = self.data_shape
        return n * self.filters * channels * 9 * (height // 2) * (width // 2)


def _infer(call: relax.Call) -> relax.TensorType:
    attrs = InitialBlockAttrs.from_call(call)
    return relax.TensorType(attrs.out_layout.physical(attrs.out_shape), attrs.out_layout.storage)


INITIAL_BLOCK = register_op("enet.initial_block", "ENet's initial block, batch norm folded", _infer)


def initial_block(
    attrs: InitialBlockAttrs,
    data: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    scale: relax.Expr,
    shift: relax.Expr,
    slope: relax.Expr,
) -> relax.Call:
    """Return a call of ``prelu(concat(conv2d(data) + bias, max_pool2d(data) * scale + shift))``.

    Parameters
    ----------
    attrs : InitialBlockAttrs
    data : relax.Expr
        Input, stored in ``attrs.data_layout``; H and W even.
    weight, bias : relax.Expr
        Filters, F x C x 3 x 3, for stride 2 and padding 1, and their bias, F.
    scale, shift : relax.Expr
        Factors and offsets of the pooled channels, C each.
    slope : relax.Expr
        PReLU slopes of all channels, F + C.
    """
    dictionary = tvm.ir.make_node(
        "ir.DictAttrs",
        data_layout=attrs.data_layout.to_attr(),
        out_layout=attrs.out_layout.to_attr(),
        layers=list(attrs.layers),
        pool=attrs.pool,
    )
    return relax.Call(INITIAL_BLOCK, [data, weight, bias, scale, shift, slope], dictionary)
