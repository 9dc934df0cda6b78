"""The templates of GPUs, in the order in which they are tried."""

from __future__ import annotations

from enet_tvm.compiler.kernels.common.template import Template, Templates
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_doubling import GpuUpsamplingBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_half2 import GpuHalf2BottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_head import GpuLastBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_matrix import GpuMatrixBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.conv2d_halves import GpuHalf2Conv2DTemplate, GpuMatrixConv2DTemplate
from enet_tvm.compiler.kernels.gpu.initial_block import GpuInitialBlockTemplate
from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate, GpuMaxUnpool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit
from enet_tvm.compiler.kernels.gpu.transposed import GpuLabellingTemplate, GpuTransposedTemplate

TEMPLATES: tuple[type[Template], ...] = (
    GpuBottleneckTemplate,
    GpuUpsamplingBottleneckTemplate,
    GpuLastBottleneckTemplate,
    GpuConv2DTemplate,
    GpuTransposedTemplate,
    GpuLabellingTemplate,
    GpuInitialBlockTemplate,
    GpuInitialDownsamplerTemplate,
    GpuMaxPool2DTemplate,
    GpuMaxUnpool2DTemplate,
)
"""Classes of the templates; the first that covers a call makes its kernel."""


HALF2_TEMPLATES: tuple[type[Template], ...] = (GpuHalf2BottleneckTemplate, GpuHalf2Conv2DTemplate)
"""Classes of the templates that multiply and add pairs of float16, which come before the others."""

MATRIX_TEMPLATES: tuple[type[Template], ...] = (GpuMatrixBottleneckTemplate, GpuMatrixConv2DTemplate)
"""Classes of the templates that multiply matrices of float16, which come before these."""


def gpu_templates(unit: GpuUnit) -> Templates:
    """Return the templates for a GPU, whose tensors are plain NCHW: neighbouring threads take neighbouring pixels.

    Those that compute in float16 are for a `HalfUnit` with a rate for it.
    """
    halves: tuple[type[Template], ...] = ()
    if isinstance(unit, HalfUnit) and unit.matrix_depth:
        halves = MATRIX_TEMPLATES
    if isinstance(unit, HalfUnit) and unit.half2:
        halves = (*halves, *HALF2_TEMPLATES)
    return Templates(unit, (*halves, *TEMPLATES), lambda spec: [spec])
