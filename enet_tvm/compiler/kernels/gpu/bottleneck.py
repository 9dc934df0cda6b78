"""The end of a bottleneck and the beginning of the next on a GPU: the template, whose kernel is of `bottleneck_kernel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import tvm
from tvm import relax

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import convolution_features
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel, bottleneck_kernel, bottleneck_operands
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, bottleneck_tiles
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import is_of_cells
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuBottleneckTemplate:
    """The end of a bottleneck and the beginning of the next on a GPU.

    Attributes
    ----------
    spec : FusedBottleneck
        The convolutions, their `layers` left out.
    unit : GpuUnit
        Multiprocessors of the GPU, and the limits of its threads.
    """

    spec: FusedBottleneck
    unit: GpuUnit
    spec_type: ClassVar[type] = FusedBottleneck
    point_type: ClassVar[type] = BottleneckTile

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether everything is plain NCHW, follows from the one before it, and is divided by some tile."""
        parts, expand = spec.convolutions, spec.expand
        if any(part.transposed or part.argmax for part in parts):
            return False
        if any({part.data_layout, part.out_layout, part.residual_layout} != {PLANAR} for part in parts):
            return False
        if spec.in_cells and (any(side % 2 for side in expand.out_shape[2:]) or expand.residual == "unpool"):
            return False
        if spec.beside is not None and (spec.reduce is None or spec.in_cells or not spec.beside.is_pointwise):
            return False
        plain = all(part.residual == "none" for part in parts if part is not expand)
        local = expand.is_pointwise and (spec.reduce is None or spec.reduce.is_pointwise or is_of_cells(spec.reduce))
        return plain and local and (len(parts) > 1 or spec.pooled) and bool(bottleneck_tiles(spec, unit))

    @classmethod
    def of(cls, spec: FusedBottleneck, unit: GpuUnit) -> Self:
        """Return the template for a call."""
        return cls(spec.without_layers(), unit)

    @property
    def name(self) -> str:
        """The convolutions and their shape."""
        return self.spec.kernel_name

    @property
    def default(self) -> BottleneckTile:
        """The launch that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return bottleneck_tiles(self.spec, self.unit)

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_bottleneck(self.spec, point)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the data, then the packed weight, bias, slopes and shortcut of one convolution after the other."""
        return bottleneck_operands(self.spec, point, arguments, BottleneckKernel)

    def features(self, point: BottleneckTile) -> list[float]:
        """Return the features of the widening convolution and of this tile."""
        width = self.spec.out_shape[3]
        return convolution_features(self.spec.expand, point.lanes, width, point.pixels, point.channels, point.rows)


def gpu_bottleneck(spec: FusedBottleneck, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a bottleneck.

    Its arguments are the data; for each of ``spec.convolutions`` the weight, as `pack_bottleneck_weight` orders it, or
    `pack_cell_weight` where it is 2x2 with stride 2, bias, inner slope, slope, residual and window as far as it has them,
    called ``expand_weight`` and so on; and ``spec.outputs``. Tensors are plain NCHW.
    """
    return bottleneck_kernel(spec, tile, BottleneckKernel)
