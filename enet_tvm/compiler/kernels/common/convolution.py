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
        The convolution, its `layers` left out, so that equal ones have one kernel.
    unit : VectorUnit or GpuUnit
        Vector registers of the target's processor, or its GPU.
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
        Input tensor.
    weight : ndarray
        Weights, OC x IC x KH x KW float32, or IC x OC x KH x KW when transposed.
    bias : ndarray
        Bias of each output channel, OC float32.
    slopes : list of relax.Expr
        Slopes of the inner and of the outer activation, of those that are PReLUs; OC float32 each.
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
    """Return the float32 value of a constant that a kernel multiplies with or adds.

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
    spec: FusedConv2D, lanes: int, width: int, pixels: int, blocks: int, phases: float, transformed: tuple[int, int] = (1, 1)
) -> list[float]:
    """Return the features of a convolution and of a tile of it, by which a cost model tells kernels apart.

    Parameters
    ----------
    spec : FusedConv2D
        The convolution.
    lanes : int
        Values of a vector; on a GPU, threads side by side along the pixels.
    width : int
        Pixels of a row that tiles are cut from.
    pixels, blocks : int
        Extents of a tile: pixels of a row (output channels of a planar kernel, tiles of Winograd's algorithm), and vectors of
        output channels (single channels on a GPU, 1 for a planar kernel).
    phases : float
        Sums for each pixel and block, such as the phases of a transposed convolution; a part of one where threads share it.
    transformed : (int, int)
        Outputs of a transform of Winograd's algorithm along rows and columns; 1 where there is none.
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
