"""ENet's initial block together with what the downsampling bottleneck after it begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tvm
from tvm import relax

from enet_tvm.compiler.ops.conv2d import FusedConv2D
from enet_tvm.compiler.ops.initial_block import InitialBlockAttrs
from enet_tvm.compiler.ops.layout import Layout, Shape
from enet_tvm.compiler.ops.registry import register_op

BLOCK_ARGUMENTS = 6
"""Arguments of the block: data, weight, bias, scale, shift and slope."""


@dataclass(frozen=True)
class InitialDownsampler:
    """What ``enet.initial_downsampler`` computes; the result of the block itself is no output.

    Attributes
    ----------
    block : InitialBlockAttrs
        The initial block.
    reduce : FusedConv2D
        A 2x2 convolution with stride 2 of its result, beside which it is pooled.
    """

    block: InitialBlockAttrs
    reduce: FusedConv2D

    @classmethod
    def from_call(cls, call: relax.Call) -> InitialDownsampler:
        """Return what a call of the operator computes."""
        return cls(InitialBlockAttrs.from_call(call), FusedConv2D.from_attrs(call.attrs["reduce"]))

    def without_layers(self) -> InitialDownsampler:
        """Return the same without the names of layers, so that equal ones have one kernel."""
        return InitialDownsampler(replace(self.block, layers=()), replace(self.reduce, layers=()))

    @property
    def outputs(self) -> dict[str, tuple[Shape, str]]:
        """Shape and type of each output by its name: ``reduced``, ``pooled`` and ``window``."""
        n, channels, height, width = self.block.out_shape
        maxima = (n, channels, height // 2, width // 2)
        return {"reduced": (self.reduce.out_shape, "float32"), "pooled": (maxima, "float32"), "window": (maxima, "uint8")}

    @property
    def data_shape(self) -> Shape:
        """Logical N x C x H x W of the input."""
        return self.block.data_shape

    @property
    def out_shape(self) -> Shape:
        """Logical N x C x H/4 x W/4 of the first output."""
        return self.reduce.out_shape

    @property
    def out_layout(self) -> Layout:
        """Layout of the first output."""
        return self.reduce.out_layout

    @property
    def layers(self) -> tuple[str, ...]:
        """The sub-modules of the network that it computes; the last one's result is its first output."""
        return tuple(dict.fromkeys((*self.block.layers, *self.reduce.layers)))

    @property
    def operators(self) -> list[str]:
        """Names of the operators that it computes, in order, as TVM calls them."""
        return [*self.block.operators, "max_pool2d_with_window", *self.reduce.operators]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of both convolutions, padding counted in."""
        return self.block.multiply_adds + self.reduce.multiply_adds


def _infer(call: relax.Call) -> relax.TupleType:
    return relax.TupleType(
        [relax.TensorType(shape, dtype) for shape, dtype in InitialDownsampler.from_call(call).outputs.values()]
    )


INITIAL_DOWNSAMPLER = register_op("enet.initial_downsampler", "Initial block, pooling and 2x2 convolution", _infer)


def initial_downsampler(block: relax.Call, reduce: relax.Call, layers: Sequence[str] = ()) -> relax.Call:
    """Return a call of the operator, whose result is the tuple of `InitialDownsampler.outputs`.

    Parameters
    ----------
    block, reduce : relax.Call
        The calls of ``enet.initial_block`` and ``enet.fused_conv2d`` that it replaces.
    layers : sequence of str
        Sub-modules of the network that compute the pooling.
    """
    conv = FusedConv2D.from_call(reduce)
    attrs = {str(key): block.attrs[key] for key in ("data_layout", "out_layout", "layers", "pool")}
    attrs["reduce"] = replace(conv, layers=(*layers, *conv.layers)).to_attrs()
    return relax.Call(INITIAL_DOWNSAMPLER, [*block.args, *reduce.args[1:]], tvm.ir.make_node("ir.DictAttrs", **attrs))
