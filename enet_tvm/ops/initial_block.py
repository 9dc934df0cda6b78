"""ENet's initial block as one operator: convolution beside pooling, concatenated, normalised, activated."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from enet_tvm.ops.layout import PLANAR, Layout
from enet_tvm.ops.registry import register_op, static_shape


@dataclass(frozen=True)
class InitialBlockAttrs:
    """Attributes of ``enet.initial_block``.

    Attributes
    ----------
    out_layout : Layout
        How its output is stored.
    layers : tuple of str
        The sub-modules of the network that it computes.
    pool : {2, 3}
        Window of the pooling, with stride 2: 2x2, or 3x3 padded by 1.
    """

    out_layout: Layout = PLANAR
    layers: tuple[str, ...] = ()
    pool: int = 2

    @classmethod
    def from_call(cls, call: relax.Call) -> InitialBlockAttrs:
        """Return the attributes of a call of the operator."""
        layout = Layout.from_attr(call.attrs["out_layout"])
        return cls(layout, tuple(str(name) for name in call.attrs["layers"]), int(call.attrs["pool"]))


def _infer(call: relax.Call) -> relax.TensorType:
    n, channels, h, w = static_shape(call.args[0])
    filters = static_shape(call.args[1])[0]
    layout = InitialBlockAttrs.from_call(call).out_layout
    return relax.TensorType(layout.physical((n, filters + channels, h // 2, w // 2)), layout.storage)


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
    """Return ``prelu(concat(conv2d(data) + bias, max_pool2d(data) * scale + shift))``.

    Parameters
    ----------
    attrs : InitialBlockAttrs
    data : relax.Expr
        N x C x H x W float32, H and W even.
    weight, bias : relax.Expr
        F x C x 3 x 3 and F, for stride 2 and padding 1.
    scale, shift : relax.Expr
        C, of the pooled channels.
    slope : relax.Expr
        F + C.
    """
    dictionary = tvm.ir.make_node(
        "ir.DictAttrs", out_layout=attrs.out_layout.to_attr(), layers=list(attrs.layers), pool=attrs.pool
    )
    return relax.Call(INITIAL_BLOCK, [data, weight, bias, scale, shift, slope], dictionary)
