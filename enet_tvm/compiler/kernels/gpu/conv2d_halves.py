"""Convolutions that compute in float16, as bottlenecks begin: pairs where a GPU doubles their rate, or products of matrices.

A bottleneck's kernel convolves what a block copies into shared memory, position after position. A kernel here ends after that,
and writes what comes of it. So these are the emitters of bottlenecks, and what they take for one is the convolution with a
widening one after it, which is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm import relax

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, ConvolutionTemplate, convolution_features
from enet_tvm.compiler.kernels.gpu.bottleneck_half2 import Half2BottleneckKernel, divides
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel
from enet_tvm.compiler.kernels.gpu.bottleneck_matrix import MatrixBottleneckKernel, ShallowMatrixBottleneckKernel
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, bottleneck_tiles
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import group_tile
from enet_tvm.compiler.kernels.gpu.building import for_threads
from enet_tvm.compiler.kernels.gpu.conv2d import epilogue_arguments, gpu_operands
from enet_tvm.compiler.kernels.gpu.matrix_tile import matrix_tiles
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuHalf2Conv2DTemplate(ConvolutionTemplate):
    """A convolution on a GPU that multiplies and adds pairs of float16."""

    unit: GpuUnit
    point_type: ClassVar[type] = BottleneckTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is plain NCHW without a shortcut, and some tile divides its channels."""
        return _is_plain(spec) and bool(cls(spec, unit).points())

    @property
    def default(self) -> BottleneckTile:
        """The launch that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        alike = bottleneck_like(self.spec)
        return [tile for tile in bottleneck_tiles(alike, self.unit) if divides(alike, tile)]

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return _kernel(self.spec, point, _Half2Conv2D)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return data, weights as pairs of output channels, bias and slopes."""
        return _operands(self.spec, point, arguments, _Half2Conv2D)

    def features(self, point: BottleneckTile) -> list[float]:
        """Return the features of this tile."""
        return convolution_features(self.spec, point.lanes, self.spec.out_shape[3], point.pixels, point.channels, point.rows)


@dataclass(frozen=True)
class GpuMatrixConv2DTemplate(GpuHalf2Conv2DTemplate):
    """A convolution on a GPU that multiplies matrices of float16."""

    unit: HalfUnit

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is plain NCHW without a shortcut, and its channels are divided by 16."""
        return isinstance(unit, HalfUnit) and bool(unit.matrix_depth) and super().covers(spec, unit)

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return matrix_tiles(bottleneck_like(self.spec, _WIDENED), self.unit)

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return _kernel(self.spec, point, _MATRIX_KERNELS[self.unit.matrix_depth], _WIDENED)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return data, weights as warps take them, bias and slopes."""
        return _operands(self.spec, point, arguments, _MatrixConv2D)


_WIDENED = 4
"""Channels of the widening convolution that is not computed, for each of this one's: a block of warps shares pixels, too."""


def bottleneck_like(spec: FusedConv2D, widened: int = 1) -> FusedBottleneck:
    """Return the bottleneck that begins with a convolution, and ends with one that widens its channels so many times."""
    n, channels, height, width = spec.out_shape
    shapes = spec.out_shape, (n, channels * widened, height, width)
    return FusedBottleneck(FusedConv2D(*shapes, (1, 1), (1, 1), (0, 0), (1, 1)), spec, None)


def _is_plain(spec: FusedConv2D) -> bool:
    planar = {spec.data_layout, spec.out_layout} == {PLANAR}
    return planar and not spec.transposed and not spec.argmax and spec.residual == "none"


def _kernel(spec: FusedConv2D, tile: BottleneckTile, kind: type[BottleneckKernel], widened: int = 1) -> tvm.tirx.PrimFunc:
    """Return the kernel: data, weight, bias, inner slope and slope as far as there are any, and the output."""
    arguments: Arguments = {
        "data": (spec.data_shape, "float32"),
        "conv_weight": (kind.weight_shape(spec, tile), kind.weight_dtype),
        **{f"conv_{key}": value for key, value in epilogue_arguments(spec, group_tile(tile)).items()},
        "out": (spec.out_shape, "float32"),
    }

    def body(*buffers: Any) -> None:
        kind(bottleneck_like(spec, widened), tile, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def _operands(
    spec: FusedConv2D, tile: BottleneckTile, arguments: Sequence[relax.Expr], kind: type[BottleneckKernel]
) -> list[relax.Expr]:
    given = ConvolutionArguments.of(spec, arguments)
    return gpu_operands(given, kind.packed_weight(spec, given.weight, tile), group_tile(tile))


class _Conv2D(BottleneckKernel):
    """Emits the beginning of a bottleneck, whose result is written."""

    def emit(self) -> None:
        """Emit the launch."""
        blocks = (self.pixels.blocks, 1, self.spec.expand.out_shape[0])
        with for_threads(blocks, (self.tile.lanes, self.tile.rows)) as launch:
            self.start(*launch)
            self._convolve(self.spec.named["conv"])

    def _keep_convolved(self, values: list[Any], channels: list[Any], row: Any) -> None:
        self._keeping("out")(values, channels, row)


class _Half2Conv2D(_Conv2D, Half2BottleneckKernel):
    """Emits the kernel of pairs."""


class _MatrixConv2D(_Conv2D, MatrixBottleneckKernel):
    """Emits the kernel of products of matrices."""


class _ShallowMatrixConv2D(_Conv2D, ShallowMatrixBottleneckKernel):
    """Emits the kernel for GPUs whose instruction takes eight inputs."""


_MATRIX_KERNELS = {8: _ShallowMatrixConv2D, 16: _MatrixConv2D}
