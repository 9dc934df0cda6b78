"""The templates of GPUs, in the order in which they are tried."""

from __future__ import annotations

from enet_tvm.compiler.kernels.common.template import Template, Templates
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_doubling import GpuUpsamplingBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_head import GpuLastBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.initial_block import GpuInitialBlockTemplate
from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate, GpuMaxUnpool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
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


def gpu_templates(unit: GpuUnit) -> Templates:
    """Return the templates for a GPU, whose tensors are plain NCHW: neighbouring threads take neighbouring pixels."""
    return Templates(unit, TEMPLATES, lambda spec: [spec])
