"""Relax operators of this project, in the `enet` dialect: what the passes rewrite ENet into.

Importing the package registers them. They print, type-check and legalise like TVM's own.
"""

from enet_tvm.compiler.ops.bottleneck import FusedBottleneck, fused_bottleneck
from enet_tvm.compiler.ops.conv2d import FusedConv2D, fused_conv2d
from enet_tvm.compiler.ops.initial_block import InitialBlockAttrs, initial_block
from enet_tvm.compiler.ops.initial_downsampler import InitialDownsampler, initial_downsampler
from enet_tvm.compiler.ops.layout import PLANAR, Layout, pack, unpack
from enet_tvm.compiler.ops.spec import Spec, passes_codes, spec_of
from enet_tvm.compiler.ops.window import MaxPool2DWithWindow, MaxUnpool2D, max_pool2d_with_window, max_unpool2d

__all__ = [
    "PLANAR",
    "FusedBottleneck",
    "FusedConv2D",
    "InitialBlockAttrs",
    "InitialDownsampler",
    "Layout",
    "MaxPool2DWithWindow",
    "MaxUnpool2D",
    "Spec",
    "fused_bottleneck",
    "fused_conv2d",
    "initial_block",
    "initial_downsampler",
    "max_pool2d_with_window",
    "max_unpool2d",
    "pack",
    "passes_codes",
    "spec_of",
    "unpack",
]
