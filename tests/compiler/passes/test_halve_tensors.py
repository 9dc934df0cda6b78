"""Which tensors of a GPU's network become float16, and that kernels and the list of launches follow."""

from __future__ import annotations

import torch
import tvm
from torch import nn

from enet_tvm.compiler.dataflow import Dataflow, is_call
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.halve_tensors import HalveTensors
from enet_tvm.compiler.passes.lower_kernels import LowerKernels

TEMPLATES = gpu_templates(GpuUnit(2, 80))


def halved(network: nn.Module, shape: tuple[int, ...]) -> tuple[tvm.IRModule, HalveTensors, LowerKernels]:
    lowering = LowerKernels(TEMPLATES)
    halving = HalveTensors(lowering)
    with torch.inference_mode():
        mod = from_torch(network.eval(), shape)
    return tvm.transform.Sequential([FuseConv2D(TEMPLATES), lowering, halving])(mod), halving, lowering


def dtypes(mod: tvm.IRModule) -> dict[str, str]:
    """Return the type of each tensor that main computes, by the name of its variable."""
    made = [binding.var for binding in Dataflow(mod).bindings if is_call(binding.value, "relax.call_tir")]
    return {str(var.name): str(var.ty.dtype) for var in made}


def test_what_kernels_hand_on(network_of):
    """The first and the last tensor stay float32, and the same kernel is made twice where it reads another type."""
    layers = {f"conv{i}": nn.Conv2d(4, 4, 3, padding=1) for i in range(4)}
    network = network_of(lambda net, x: net.conv3(net.conv2(net.conv1(net.conv0(x)))), **layers)
    mod, halving, lowering = halved(network, (1, 4, 6, 8))
    assert dtypes(mod) == {"conv0": "float16", "conv1": "float16", "conv2": "float16", "conv3": "float32"}
    assert str(mod["main"].params[0].ty.dtype) == str(mod["main"].ret_ty.dtype) == "float32"
    assert len({launch.kernel for launch in lowering.launches}) == 1
    assert len({launch.kernel for launch in halving.launches}) == 3
    size = 4 * 6 * 8
    saved = [before.bytes - after.bytes for before, after in zip(lowering.launches, halving.launches, strict=True)]
    assert saved == [2 * size, 4 * size, 4 * size, 2 * size]
    assert [launch.layout.dtype for launch in halving.launches] == ["float16", "float16", "float16", "float32"]
    calls = [binding.value for binding in Dataflow(mod).bindings if is_call(binding.value, "relax.call_tir")]
    called = [str(call.args[0].name_hint) for call in calls]
    assert [launch.kernel for launch in halving.launches] == called


def test_what_other_operators_touch_stays(network_of):
    """A sigmoid has no template: what it reads and what it writes are float32."""
    layers = {f"conv{i}": nn.Conv2d(4, 4, 3, padding=1) for i in range(4)}
    network = network_of(lambda net, x: net.conv3(net.conv2(torch.sigmoid(net.conv1(net.conv0(x))))), **layers)
    mod = halved(network, (1, 4, 6, 8))[0]
    found = dtypes(mod)
    assert [found[f"conv{i}"] for i in range(4)] == ["float16", "float32", "float16", "float32"]
    assert {str(b.var.ty.dtype) for b in Dataflow(mod).bindings if is_call(b.value, "relax.sigmoid")} == {"float32"}


def test_nothing_to_shorten(network_of):
    mod, halving, lowering = halved(network_of(lambda net, x: net.conv(x), conv=nn.Conv2d(4, 4, 1)), (1, 4, 6, 8))
    assert halving.launches == lowering.launches
    assert dtypes(mod) == {"conv": "float32"}
