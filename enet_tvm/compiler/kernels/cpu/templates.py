"""The templates of CPUs, in the order in which they are tried."""

from __future__ import annotations

from enet_tvm.compiler.kernels.common.template import Template, Templates
from enet_tvm.compiler.kernels.cpu.blocking import forms
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.downsampler import DownsamplerTemplate
from enet_tvm.compiler.kernels.cpu.initial_block import InitialBlockTemplate
from enet_tvm.compiler.kernels.cpu.matrix_conv2d import MatrixConv2DTemplate
from enet_tvm.compiler.kernels.cpu.planar import PlanarTemplate
from enet_tvm.compiler.kernels.cpu.pooling import MaxPool2DTemplate, MaxUnpool2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd import WinogradTemplate
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTemplate

TEMPLATES: tuple[type[Template], ...] = (
    WinogradTemplate,
    BlockedWinogradTemplate,
    MatrixConv2DTemplate,
    Conv2DTemplate,
    PlanarTemplate,
    InitialBlockTemplate,
    DownsamplerTemplate,
    MaxPool2DTemplate,
    MaxUnpool2DTemplate,
)
"""Classes of the templates; the first that covers a call makes its kernel."""


def cpu_templates(unit: VectorUnit) -> Templates:
    """Return the templates for a target with these vector registers."""
    return Templates(unit, TEMPLATES, lambda spec: forms(spec, unit.lanes))
