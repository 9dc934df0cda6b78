"""Specifications of the operators of the dialect: each says in one value what a call computes."""

from __future__ import annotations

from typing import Any, Protocol

from tvm import relax

from enet_tvm.compiler.dataflow import is_call
from enet_tvm.compiler.ops.bottleneck import FusedBottleneck
from enet_tvm.compiler.ops.conv2d import FusedConv2D
from enet_tvm.compiler.ops.initial_block import InitialBlockAttrs
from enet_tvm.compiler.ops.initial_downsampler import InitialDownsampler
from enet_tvm.compiler.ops.layout import Layout, Shape
from enet_tvm.compiler.ops.window import MaxPool2DWithWindow, MaxUnpool2D


class Spec(Protocol):
    """The specification of a call: operators, shapes and layouts, in a frozen dataclass."""

    @property
    def data_shape(self) -> Shape:
        """Logical N x C x H x W of the input."""

    @property
    def out_shape(self) -> Shape:
        """Logical N x C x H x W of the output, of the first one where there are several."""

    @property
    def out_layout(self) -> Layout:
        """Layout of that output."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Sub-modules of the network that it computes; empty where the variable's name alone says which one it is."""

    @property
    def operators(self) -> list[str]:
        """Names of the operators that it computes, in order, as TVM calls them."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of its convolutions; 0 where it has none."""


_SPECS: dict[str, Any] = {
    "enet.fused_bottleneck": FusedBottleneck,
    "enet.fused_conv2d": FusedConv2D,
    "enet.initial_block": InitialBlockAttrs,
    "enet.initial_downsampler": InitialDownsampler,
    "enet.max_pool2d_with_window": MaxPool2DWithWindow,
    "enet.max_unpool2d": MaxUnpool2D,
}


def spec_of(expr: Any) -> Any:
    """Return what a call of the dialect computes, None when `expr` is no such call."""
    return next((kind.from_call(expr) for name, kind in _SPECS.items() if is_call(expr, name)), None)


def passes_codes(call: relax.Expr) -> bool:
    """Whether an operator's output has the codes of its first input: what selects among values, computes none."""
    return is_call(call, "enet.max_pool2d_with_window") or is_call(call, "enet.max_unpool2d")
