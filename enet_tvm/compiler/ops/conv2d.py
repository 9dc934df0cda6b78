"""A convolution with everything around it: bias, shortcut and activation in one operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import tvm
from tvm import relax

from enet_tvm.compiler.ops.layout import PLANAR, Layout
from enet_tvm.compiler.ops.registry import register_op

Pair = tuple[int, int]
Activation = Literal["none", "relu", "prelu"]


@dataclass(frozen=True)
class FusedConv2D:
    """Attributes of ``enet.fused_conv2d``.

    Attributes
    ----------
    data_shape, out_shape : tuple of int
        Logical N x C x H x W of the input and of the output.
    kernel, strides, padding, dilation : (int, int)
        Values for rows, then for columns. `padding` is that of a symmetric convolution, also for the transposed one.
    transposed : bool
        Whether the convolution is transposed (its weight is IC x OC x KH x KW).
    inner_activation : {"none", "relu", "prelu"}
        Activation of the convolution itself, before the residual is added.
    activation : {"none", "relu", "prelu"}
        Activation of the result.
    residual : {"none", "add", "pad", "unpool"}
        Shortcut added before the activation: a tensor of the output's shape; one with fewer channels, the rest
        being zero; or a tensor of half the height and width that is max-unpooled by its window indices.
    residual_channels : int
        Channels of the residual, 0 without one.
    argmax : bool
        Whether the result is not the activations but the channel of the largest, N x H x W uint8; the first of equals.
    layers : tuple of str
        The sub-modules of the network that it computes; the last one's result is its output.
    data_layout, out_layout, residual_layout : Layout
        Layouts of these tensors; the window indices lie as an unpadded `residual_layout`.
    """

    data_shape: tuple[int, int, int, int]
    out_shape: tuple[int, int, int, int]
    kernel: Pair
    strides: Pair
    padding: Pair
    dilation: Pair
    transposed: bool = False
    inner_activation: Activation = "none"
    activation: Activation = "none"
    residual: Literal["none", "add", "pad", "unpool"] = "none"
    residual_channels: int = 0
    argmax: bool = False
    layers: tuple[str, ...] = ()
    data_layout: Layout = PLANAR
    out_layout: Layout = PLANAR
    residual_layout: Layout = PLANAR

    def to_attrs(self) -> tvm.ir.DictAttrs:
        """Return the operator attributes."""
        flat: dict[str, Any] = {}
        for key, value in asdict(self).items():
            flat[key] = getattr(self, key).to_attr() if key.endswith("_layout") else _plain(value)
        return tvm.ir.make_node("ir.DictAttrs", **flat)

    @classmethod
    def from_call(cls, call: relax.Call) -> FusedConv2D:
        """Return the attributes of a call of the operator."""
        return cls.from_attrs(call.attrs)

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> FusedConv2D:
        """Return what `to_attrs` was called on."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            raw = attrs[item.name]
            if item.name.endswith("_layout"):
                values[item.name] = Layout.from_attr(raw)
            elif item.name in ("transposed", "residual_channels", "argmax"):
                values[item.name] = int(raw)
            elif item.name in ("inner_activation", "activation", "residual"):
                values[item.name] = str(raw)
            elif item.name == "layers":
                values[item.name] = tuple(str(v) for v in raw)
            else:
                values[item.name] = tuple(int(v) for v in raw)
        return cls(**values)

    @property
    def operators(self) -> list[str]:
        """Names of the operators that it computes, in order, as TVM calls them."""
        names = ["conv2d_transpose" if self.transposed else "conv2d", "bias_add"]
        names += [] if self.inner_activation == "none" else [self.inner_activation]
        names += {"none": [], "add": ["add"], "pad": ["pad", "add"], "unpool": ["max_unpool2d", "add"]}[self.residual]
        names += [] if self.activation == "none" else [self.activation]
        return names + (["argmax"] if self.argmax else [])

    @property
    def argument_count(self) -> int:
        """Number of arguments of a call: data, weight, bias, and those slopes and parts of a shortcut that it has."""
        slopes = [self.inner_activation, self.activation].count("prelu")
        return 3 + slopes + {"none": 0, "add": 1, "pad": 1, "unpool": 2}[self.residual]

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel is computed of the input pixel at its place alone: a 1x1 convolution without a step."""
        return not self.transposed and (*self.kernel, *self.strides, *self.padding) == (1, 1, 1, 1, 0, 0)

    @property
    def doubles(self) -> bool:
        """Whether a transposed convolution makes height and width twice the input's."""
        return self.transposed and self.strides == (2, 2) and self.out_shape[2:] == tuple(2 * s for s in self.data_shape[2:])

    @property
    def kernel_name(self) -> str:
        """A name for its kernel: what it computes and on what shape."""
        parts = [f"{self.operators[0]}_{self.kernel[0]}x{self.kernel[1]}"]
        if self.strides != (1, 1) and not self.transposed:
            parts.append(f"s{self.strides[0]}")
        if self.dilation != (1, 1):
            parts.append(f"d{self.dilation[0]}")
        _, channels, height, width = self.out_shape
        parts += [f"{self.data_shape[1]}to{channels}", f"{width}x{height}", *self.operators[2:]]
        return "_".join(parts)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the convolution alone: a transposed one's without inserted zeros, padding counted in."""
        n, out_channels, height, width = self.data_shape if self.transposed else self.out_shape
        other = self.out_shape[1] if self.transposed else self.data_shape[1]
        return n * out_channels * height * width * self.kernel[0] * self.kernel[1] * other


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _infer(call: relax.Call) -> relax.TensorType:
    attrs = FusedConv2D.from_call(call)
    if attrs.argmax:
        n, _, height, width = attrs.out_shape
        return relax.TensorType((n, height, width), "uint8")
    return relax.TensorType(attrs.out_layout.physical(attrs.out_shape), attrs.out_layout.storage)


FUSED_CONV2D = register_op("enet.fused_conv2d", "Convolution, bias, shortcut and activation", _infer)


def fused_conv2d(
    attrs: FusedConv2D,
    data: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    slope: relax.Expr | None = None,
    residual: relax.Expr | None = None,
    window: relax.Expr | None = None,
    inner_slope: relax.Expr | None = None,
) -> relax.Call:
    """Return a call of the operator: data, weight, bias, then inner slope, slope, residual and window, absent ones left out.

    Parameters
    ----------
    attrs : FusedConv2D
    data : relax.Expr
        Input, stored in ``attrs.data_layout``.
    weight : relax.Expr
        Weights, OC x IC x KH x KW (IC x OC x KH x KW when transposed), float32.
    bias : relax.Expr
        Bias of each output channel, OC, float32.
    slope, inner_slope : relax.Expr, optional
        Slopes of the outer and of the inner activation where it is a PReLU; OC, float32.
    residual, window : relax.Expr, optional
        Shortcut and the uint8 window indices to unpool it by, as far as ``attrs.residual`` asks for them.
    """
    arguments = [data, weight, bias, inner_slope, slope, residual, window]
    return relax.Call(FUSED_CONV2D, [a for a in arguments if a is not None], attrs.to_attrs())
