"""What the templates of convolutions have in common, whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from tvm import relax

from enet_tvm.compiler.dataflow import constant_value
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.errors import UserError


@dataclass(frozen=True)
class ConvolutionTemplate:
    """A template of ``enet.fused_conv2d``.

    Attributes
    ----------
    spec : FusedConv2D
        The convolution, without its layers: kernels of equal ones are equal.
    unit : VectorUnit or GpuUnit
        What the target computes with.
    """

    spec: FusedConv2D
    unit: Any
    spec_type: ClassVar[type] = FusedConv2D

    @classmethod
    def of(cls, spec: FusedConv2D, unit: Any) -> Self:
        """Return the template for a call."""
        return cls(replace(spec, layers=()), unit)

    @property
    def name(self) -> str:
        """The operators and shapes of the convolution."""
        return self.spec.kernel_name


@dataclass(frozen=True)
class ConvolutionArguments:
    """The arguments of a call of ``enet.fused_conv2d`` by name.

    Attributes
    ----------
    data : relax.Expr
        The input.
    weight : ndarray
        OC x IC x KH x KW, or IC x OC x KH x KW when transposed.
    bias : ndarray
        OC.
    slopes : list of relax.Expr
        Of the inner and of the outer activation, those that are PReLUs; OC each.
    shortcut : list of relax.Expr
        Residual and window indices, as far as there are any.
    """

    data: relax.Expr
    weight: np.ndarray
    bias: np.ndarray
    slopes: list[relax.Expr]
    shortcut: list[relax.Expr]

    @classmethod
    def of(cls, spec: FusedConv2D, arguments: Sequence[relax.Expr]) -> ConvolutionArguments:
        """Return the arguments of a call."""
        data, weight, bias, *rest = arguments
        count = [spec.inner_activation, spec.activation].count("prelu")
        return cls(data, known(weight), known(bias), rest[:count], rest[count:])

    @property
    def residual(self) -> relax.Expr | None:
        """The tensor that is added, None without one."""
        return self.shortcut[0] if self.shortcut else None


def known(expr: relax.Expr) -> np.ndarray:
    """Return what a kernel multiplies with or adds, which is packed for it: float32.

    Raises
    ------
    ValueError
        When it is no constant.
    UserError
        When it is not float32.
    """
    value = constant_value(expr)
    if value is None:
        raise ValueError("what a kernel multiplies with and adds must be constants")
    if value.dtype != np.float32:
        raise UserError(f"kernels are made of float32 weights, and this network has some of {value.dtype}; leave them float32")
    return value


def convolution_features(
    spec: FusedConv2D, lanes: int, width: int, pixels: int, blocks: int, phases: int, transformed: tuple[int, int] = (1, 1)
) -> list[float]:
    """Return what a kernel is, what its tile is, and how the two go together.

    Parameters
    ----------
    spec : FusedConv2D
        The convolution.
    lanes : int
        Values of a vector.
    width : int
        Pixels of a row that tiles are cut from.
    pixels, blocks : int
        Of a tile: along the row, and vectors of output channels.
    phases : int
        Sums for each pixel and block.
    transformed : (int, int)
        Outputs that a transform makes in either direction.
    """
    tiles = -(-width // pixels)
    area = spec.kernel[0] * spec.kernel[1]
    return [
        *map(float, (spec.out_shape[2], width, spec.data_shape[1], spec.out_shape[1], area, spec.kernel[1], spec.strides[1])),
        *map(float, (spec.dilation[0], spec.transposed, spec.residual != "none", lanes)),
        *map(float, (pixels, blocks, pixels * blocks * phases, tiles, *transformed)),
        tiles * pixels / width,
        # Loads of weights and of pixels for each multiplication.
        1 / pixels + 1 / blocks,
    ]
