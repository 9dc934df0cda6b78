"""Channel-blocked layouts, and the operators that enter and leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tvm
from tvm import relax, te

from enet_tvm.compiler.ops.registry import register_op, static_shape

DType = Literal["float32", "float16", "bfloat16", "uint8", "int8"]
Shape = tuple[int, int, int, int]

_PER_WORD: dict[DType, int] = {"float32": 1, "bfloat16": 2, "uint8": 4, "int8": 4, "float16": 1}


@dataclass(frozen=True)
class Layout:
    """How an N x C x H x W tensor lies in memory.

    Attributes
    ----------
    block : int
        Channels of a block; 0 for plain NCHW. Otherwise channels are split into blocks of this many, the block innermost:
        N x C/block x H x (W + 2 pad) x block.
    pad : int
        Columns of zeros that the producer writes at either end of every row, so that a convolution reads
        past the picture's edge without a test.
    dtype : {"float32", "float16", "bfloat16", "uint8", "int8"}
        Type of an element. float32 and float16 are stored as they are. Of the others, as many as fit into 32 bits are stored
        as such a word, the first in the lowest bits, because that is what the processors' dot products read. The bytes are
        affine codes: a tensor's scale and the code of its zero are known where kernels are made (``passes.lower_kernels``).
    """

    block: int = 0
    pad: int = 0
    dtype: DType = "float32"

    @property
    def per_word(self) -> int:
        """Elements in a word, as `storage` has it: 1 where they are stored as they are."""
        return _PER_WORD[self.dtype]

    @property
    def codes(self) -> bool:
        """Whether elements are codes of a byte each, which a tensor's scale and zero give a meaning."""
        return self.dtype in ("uint8", "int8")

    @property
    def storage(self) -> str:
        """TVM's dtype of the stored tensor."""
        return self.dtype if self.per_word == 1 else "uint32"

    def physical(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the stored shape of a tensor of logical shape N x C x H x W."""
        if self.block == 0:
            return tuple(shape)
        n, c, h, w = shape
        if c % self.block:
            raise ValueError(f"{c} channels cannot be stored in blocks of {self.block}")
        return (n, c // self.block, h, w + 2 * self.pad, self.block // self.per_word)

    def logical(self, stored: tuple[int, ...]) -> Shape:
        """Return N x C x H x W of a tensor of this stored shape."""
        if self.block == 0:
            n, c, h, w = stored
            return n, c, h, w
        n, blocks, h, columns, _ = stored
        return n, blocks * self.block, h, columns - 2 * self.pad

    def window(self) -> Layout:
        """Return the layout of the window indices of a tensor of this layout: unpadded, a byte each, unpacked."""
        return Layout(self.block)

    def to_attr(self) -> list[int]:
        """Return the layout as an operator attribute."""
        return [self.block, self.pad, list(_PER_WORD).index(self.dtype)]

    @classmethod
    def from_attr(cls, attr: Sequence[Any]) -> Layout:
        """Return the layout of an operator attribute."""
        block, pad, dtype = (int(value) for value in attr)
        return cls(block, pad, list(_PER_WORD)[dtype])


PLANAR = Layout()


def logical_shape(stored: relax.Expr, layout: Layout = PLANAR) -> Shape:
    """Return N x C x H x W of a tensor expression that is stored in `layout`."""
    return layout.logical(static_shape(stored))


def _infer_pack(call: relax.Call) -> relax.TensorType:
    layout = Layout.from_attr(call.attrs["layout"])
    dtype = str(call.args[0].ty.dtype) if layout.dtype == "float32" else layout.storage
    return relax.TensorType(layout.physical(static_shape(call.args[0])), dtype)


def _infer_unpack(call: relax.Call) -> relax.TensorType:
    layout = Layout.from_attr(call.attrs["layout"])
    dtype = str(call.args[0].ty.dtype) if layout.dtype == "float32" else "float32"
    return relax.TensorType(layout.logical(static_shape(call.args[0])), dtype)


def _legalize_pack(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    layout = Layout.from_attr(call.attrs["layout"])
    if layout.codes:
        raise ValueError("bytes are written by kernels alone: nothing else knows a tensor's scale")

    def compute(x: te.Tensor) -> te.Tensor:
        width = int(x.shape[3])

        def element(n: Any, q: Any, h: Any, w: Any, v: Any) -> Any:
            inside = tvm.tirx.all(w >= layout.pad, w < width + layout.pad)
            values = [
                tvm.tirx.if_then_else(inside, x[n, q * layout.block + v * layout.per_word + k, h, w - layout.pad], _zero(x))
                for k in range(layout.per_word)
            ]
            if layout.per_word == 1:
                return values[0].astype(layout.dtype) if layout.dtype == "float16" else values[0]
            return _bfloat16_bits(values[0]) | (_bfloat16_bits(values[1]) << 16)

        return te.compute(layout.physical(tuple(int(s) for s in x.shape)), element, name="pack")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="pack")


def _legalize_unpack(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    layout = Layout.from_attr(call.attrs["layout"])
    if layout.codes:
        raise ValueError("bytes are read by kernels alone: nothing else knows a tensor's scale")

    def compute(x: te.Tensor) -> te.Tensor:
        def element(i: Any, c: Any, y: Any, z: Any) -> Any:
            block, lane = tvm.tirx.floordiv(c, layout.block), tvm.tirx.floormod(c, layout.block)
            word = x[i, block, y, z + layout.pad, tvm.tirx.floordiv(lane, layout.per_word)]
            if layout.per_word == 1:
                return word.astype("float32") if layout.dtype == "float16" else word
            bits = tvm.tirx.Select(tvm.tirx.floormod(lane, 2) == 0, word << 16, word & tvm.tirx.const(0xFFFF0000, "uint32"))
            return tvm.tirx.reinterpret("float32", bits)

        return te.compute(layout.logical(tuple(int(s) for s in x.shape)), element, name="unpack")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="unpack")


def _zero(x: te.Tensor) -> Any:
    return tvm.tirx.const(0, x.dtype)


def _bfloat16_bits(value: Any) -> Any:
    """Return the bits of a float32 value rounded to the nearest bfloat16, ties to even; NaN is not expected."""
    bits = tvm.tirx.reinterpret("uint32", value)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


_PACK = register_op("enet.pack", "NCHW to a channel-blocked, padded layout", _infer_pack, _legalize_pack)
_UNPACK = register_op("enet.unpack", "A channel-blocked, padded layout to NCHW", _infer_unpack, _legalize_unpack)


def pack(x: relax.Expr, layout: Layout) -> relax.Call:
    """Store an N x C x H x W tensor in `layout`."""
    return relax.Call(_PACK, [x], tvm.ir.make_node("ir.DictAttrs", layout=layout.to_attr()))


def unpack(x: relax.Expr, layout: Layout) -> relax.Call:
    """Return the N x C x H x W tensor that `x` stores in `layout`."""
    return relax.Call(_UNPACK, [x], tvm.ir.make_node("ir.DictAttrs", layout=layout.to_attr()))
