"""Channel-blocked layouts, and the operators that enter and leave them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te

from enet_tvm.ops.registry import register_op, static_shape


@dataclass(frozen=True)
class Layout:
    """How an N x C x H x W tensor lies in memory.

    Attributes
    ----------
    block : int
        0 for plain NCHW. Otherwise channels are split into blocks of this many, the block innermost:
        N x C/block x H x (W + 2 pad) x block.
    pad : int
        Columns of zeros that the producer writes at either end of every row, so that a convolution reads
        past the picture's edge without a test.
    """

    block: int = 0
    pad: int = 0

    def physical(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the stored shape of a tensor of logical shape N x C x H x W."""
        if self.block == 0:
            return tuple(shape)
        n, c, h, w = shape
        if c % self.block:
            raise ValueError(f"{c} channels cannot be stored in blocks of {self.block}")
        return (n, c // self.block, h, w + 2 * self.pad, self.block)

    def logical(self, stored: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return N x C x H x W of a tensor of this stored shape."""
        if self.block == 0:
            n, c, h, w = stored
            return n, c, h, w
        n, blocks, h, columns, block = stored
        return n, blocks * block, h, columns - 2 * self.pad


PLANAR = Layout()


def _pack_attrs(call: relax.Call) -> Layout:
    return Layout(int(call.attrs["block"]), int(call.attrs["pad"]))


def _infer_pack(call: relax.Call) -> relax.TensorType:
    return relax.TensorType(_pack_attrs(call).physical(static_shape(call.args[0])), call.args[0].ty.dtype)


def _infer_unpack(call: relax.Call) -> relax.TensorType:
    n, blocks, h, w, block = static_shape(call.args[0])
    return relax.TensorType((n, blocks * block, h, w - 2 * int(call.attrs["pad"])), call.args[0].ty.dtype)


def _legalize_pack(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    layout = _pack_attrs(call)

    def compute(x: te.Tensor) -> te.Tensor:
        width = int(x.shape[3])

        def element(n: Any, q: Any, h: Any, w: Any, v: Any) -> Any:
            inside = tvm.tirx.all(w >= layout.pad, w < width + layout.pad)
            zero = tvm.tirx.const(0, x.dtype)
            return tvm.tirx.if_then_else(inside, x[n, q * layout.block + v, h, w - layout.pad], zero)

        return te.compute(layout.physical(tuple(int(s) for s in x.shape)), element, name="pack")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="pack")


def _legalize_unpack(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    pad = int(call.attrs["pad"])

    def compute(x: te.Tensor) -> te.Tensor:
        n, blocks, h, w, block = (int(s) for s in x.shape)
        return te.compute(
            (n, blocks * block, h, w - 2 * pad),
            lambda i, c, y, z: x[i, tvm.tirx.floordiv(c, block), y, z + pad, tvm.tirx.floormod(c, block)],
            name="unpack",
        )

    return builder.call_te(compute, call.args[0], primfunc_name_hint="unpack")


_PACK = register_op("enet.pack", "NCHW to a channel-blocked, padded layout", _infer_pack, _legalize_pack)
_UNPACK = register_op("enet.unpack", "A channel-blocked, padded layout to NCHW", _infer_unpack, _legalize_unpack)


def pack(x: relax.Expr, layout: Layout) -> relax.Call:
    """Store an N x C x H x W tensor in `layout`."""
    return relax.Call(_PACK, [x], tvm.ir.make_node("ir.DictAttrs", block=layout.block, pad=layout.pad))


def unpack(x: relax.Expr, layout: Layout) -> relax.Call:
    """Return the N x C x H x W tensor that `x` stores in `layout`."""
    return relax.Call(_UNPACK, [x], tvm.ir.make_node("ir.DictAttrs", block=layout.block, pad=layout.pad))
