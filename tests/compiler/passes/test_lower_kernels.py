from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import Dataflow, constant, is_call, layer_of
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.choices import DEFAULTS, Choices
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.kernels.gpu.fitting import FittingChoices
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedConv2D
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.lower_kernels import LowerKernels
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet

UNIT = VectorUnit(16, 32)
TEMPLATES = cpu_templates(UNIT)
GPU_TEMPLATES = gpu_templates(GpuUnit(2, 80))


def conv(kernel: int = 3, outputs: int = 16, **options) -> nn.Conv2d:
    return nn.Conv2d(16, outputs, kernel, **{"padding": kernel // 2, **options})


def described(mod: tvm.IRModule) -> tuple[tvm.IRModule, list[Launch]]:
    """Return a fused module after layout and lowering, and what the pass says of its launches."""
    lowering = LowerKernels(TEMPLATES)
    return lowering(BlockLayout(TEMPLATES)(mod)), lowering.launches


def launched(mod: tvm.IRModule) -> list[str]:
    values = [binding.value for binding in Dataflow(mod).bindings]
    return [str(value.args[0].name_hint) for value in values if is_call(value, "relax.call_tir")]


def kernels(mod: tvm.IRModule) -> dict[str, tvm.tirx.PrimFunc]:
    return {g.name_hint: f for g, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}


@pytest.fixture
def lowered(transformed):
    """The module after the pass, checked against PyTorch."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = (1, 16, 4, 6)) -> tvm.IRModule:
        passes = [FoldBatchNorm(), FuseConv2D(TEMPLATES), BlockLayout(TEMPLATES), LowerKernels(TEMPLATES)]
        return transformed(network, shape, *passes, unit=UNIT)

    return run


def test_equal_kernels_are_made_once(network_of, lowered):
    """Three convolutions of one kind with different weights: the middle two run the same kernel."""
    layers = {name: conv() for name in "abcd"}
    mod = lowered(network_of(lambda net, x: net.d(torch.relu(net.c(torch.relu(net.b(torch.relu(net.a(x))))))), **layers))
    names = launched(mod)
    assert len(names) == 4
    assert names[0] == names[1] == names[2]
    assert set(kernels(mod)) == set(names)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "other",
    [conv(padding=2, dilation=2), conv(kernel=1), nn.Sequential(conv(), nn.ReLU()), nn.Sequential(conv(), nn.PReLU(16))],
    ids=["dilation", "size", "relu", "prelu"],
)
def test_different_kernels_are_apart(network_of, lowered, other: nn.Module):
    mod = lowered(network_of(lambda net, x: net.c(net.b(net.a(x))), a=conv(), b=other, c=conv()))
    assert len(set(launched(mod))) == 3


def test_nothing_of_the_dialect_but_conversions_is_left(fused_enet: tvm.IRModule, operators):
    mod = LowerKernels(TEMPLATES)(BlockLayout(TEMPLATES)(fused_enet))
    assert set(operators(mod)) == {"call_tir"}
    assert not [name for name in kernels(mod) if name not in launched(mod)]


def test_launches_are_described_in_order(fused_enet: tvm.IRModule):
    mod, launches = described(fused_enet)
    assert [launch.kernel for launch in launches] == launched(mod)
    assert len(launches) == 91
    assert len(kernels(mod)) < 50, "ENet repeats its bottlenecks: fewer kernels than launches"
    calls = [b for b in Dataflow(mod).bindings if is_call(b.value, "relax.call_tir")]
    for launch, binding in zip(launches, calls, strict=True):
        assert launch.layers[-1] == layer_of(binding.var), "the last layer's value is what the kernel writes"
        assert launch.template is not None
        stored = binding.var.ty.fields if isinstance(binding.var.ty, relax.TupleType) else [binding.var.ty]
        assert launch.shape == tuple(int(s) for s in stored[0].shape.values)
        assert launch.layout.physical(launch.layout.logical(launch.shape)) == launch.shape
        tensors = [*stored, *(argument.ty for argument in binding.value.args[1].fields)]
        sizes = [np.prod([int(s) for s in t.shape.values]) * np.dtype(str(t.dtype)).itemsize for t in tensors]
        assert launch.bytes == sum(sizes)


def test_every_layer_is_in_one_launch(fused_enet: tvm.IRModule):
    _, launches = described(fused_enet)
    layers = Counter(layer for launch in launches for layer in launch.layers)
    assert set(layers.values()) == {1}
    working = (nn.Conv2d, nn.ConvTranspose2d, nn.PReLU, nn.ReLU, nn.MaxPool2d, nn.MaxUnpool2d)
    assert {name for name, module in ENet(4).named_modules() if isinstance(module, working)} <= set(layers)


def test_kernels_are_opaque_to_fusion_and_to_scheduling(fused_enet: tvm.IRModule):
    for kernel in kernels(LowerKernels(TEMPLATES)(BlockLayout(TEMPLATES)(fused_enet))).values():
        assert kernel.attrs["tirx.is_scheduled"]
        assert int(kernel.attrs["op_pattern"]) == 8


def test_lowering_twice_makes_the_same(fused_enet: tvm.IRModule):
    """Compilation is to be deterministic: names, order and code."""
    first, second = (LowerKernels(TEMPLATES)(BlockLayout(TEMPLATES)(fused_enet)) for _ in range(2))
    assert launched(first) == launched(second)
    assert tvm_ffi.structural_equal(first, second)


def test_kernel_names_say_what_they_do(network_of, lowered):
    layers = {"a": conv(padding=4, dilation=4), "b": conv(1), "c": conv(2, 32, stride=2), "act": nn.PReLU(16)}
    mod = lowered(network_of(lambda net, x: net.c(net.act(net.b(net.a(x)) + x)), **layers), (1, 16, 6, 12))
    names = [name for name in launched(mod) if name.startswith("conv2d")]
    assert names == ["conv2d_3x3_d4_16to16_12x6", "conv2d_1x1_16to16_12x6_add_prelu", "conv2d_2x2_s2_16to32_7x4"]


def test_winograd_where_it_pays(network_of, lowered):
    """On the tiles of a picture large enough; also where a shortcut is added, and not for a 1x1 kernel."""
    layers = {"a": conv(), "b": conv(padding=2, dilation=2), "c": conv(1), "d": conv(), "act": nn.PReLU(16)}
    mod = lowered(network_of(lambda net, x: net.d(net.c(net.act(net.b(net.act(net.a(x)))))) + x, **layers), (1, 16, 16, 32))
    names = [name for name in launched(mod) if name.startswith("conv2d")]
    assert names == [
        "conv2d_3x3_16to16_32x16_prelu_winograd",
        "conv2d_3x3_d2_16to16_32x16_prelu_winograd",
        "conv2d_1x1_16to16_32x16",
        "conv2d_3x3_16to16_32x16_add_winograd",
    ]


def test_weights_that_are_no_constants(relax_main):
    attrs = FusedConv2D((1, 16, 4, 4), (1, 16, 4, 4), (1, 1), (1, 1), (0, 0), (1, 1))
    bias = constant(np.zeros(16, np.float32))
    mod = relax_main(lambda b, x, w: b.emit(ops.fused_conv2d(attrs, x, w, bias)), attrs.data_shape, (16, 16, 1, 1))
    with pytest.raises(ValueError, match="multiplies with and adds must be constants"):
        LowerKernels(TEMPLATES)(BlockLayout(TEMPLATES)(mod))


def lowered_for_gpu(
    network: nn.Module, shape: tuple[int, ...], choices: Choices = DEFAULTS
) -> tuple[tvm.IRModule, list[Launch]]:
    lowering = LowerKernels(GPU_TEMPLATES, choices)
    passes = [FoldBatchNorm(), FuseConv2D(GPU_TEMPLATES), lowering]
    return tvm.transform.Sequential(passes)(from_torch(network, shape)), lowering.launches


@pytest.fixture(scope="session")
def fused_for_gpu(randomised) -> tvm.IRModule:
    mod = from_torch(randomised(ENet(4)), (1, 3, 32, 48))
    passes = [FoldBatchNorm(), FuseInitialBlock(GPU_TEMPLATES), FuseConv2D(GPU_TEMPLATES)]
    return tvm.transform.Sequential(passes)(mod)


@pytest.mark.slow
def test_gpu_nothing_of_the_dialect_is_left(fused_for_gpu: tvm.IRModule, operators):
    mod = LowerKernels(GPU_TEMPLATES)(fused_for_gpu)
    assert set(operators(mod)) == {"call_tir"}
    assert set(kernels(mod)) == set(launched(mod))
    assert all("T.thread_binding" in kernel.script() for kernel in kernels(mod).values())


def test_gpu_launches_are_described_in_order(fused_for_gpu: tvm.IRModule):
    lowering = LowerKernels(GPU_TEMPLATES)
    assert [launch.kernel for launch in lowering.launches] == []
    mod = lowering(fused_for_gpu)
    assert [launch.kernel for launch in lowering.launches] == launched(mod)
    assert {launch.layout for launch in lowering.launches} == {PLANAR}
    assert Counter(len(launch.shape) for launch in lowering.launches) == {4: len(lowering.launches)}
    assert sum(launch.flops == 0 for launch in lowering.launches) == 2  # the poolings


def test_gpu_equal_kernels_are_made_once(network_of):
    layers = {name: conv() for name in "abcd"}
    network = network_of(lambda net, x: net.d(torch.relu(net.c(torch.relu(net.b(torch.relu(net.a(x))))))), **layers)
    names = launched(lowered_for_gpu(network, (1, 16, 4, 6))[0])
    assert len(names) == 4
    assert names[0] == names[1] == names[2] != names[3]


def test_gpu_kernels_that_a_name_does_not_tell_apart(network_of):
    """A name does not say the padding: both are there, and only the one that is to be smaller is."""
    network = network_of(
        lambda net, x: net.b(torch.relu(net.a(x))) + net.c(x)[:, :, :32, :48],
        a=nn.Conv2d(16, 16, (1, 3), padding=(0, 1)),
        b=nn.Conv2d(16, 16, (1, 3), padding=(0, 1)),
        c=nn.Conv2d(16, 16, (1, 3), padding=(1, 1)),
    )
    choices = FittingChoices()
    mod, launches = lowered_for_gpu(network, (1, 16, 32, 48), choices)
    names = launched(mod)
    assert len(names) >= 3
    assert choices.shrink(launches[0].template, lambda *_: True)
    shrunk, _ = lowered_for_gpu(network, (1, 16, 32, 48), choices)
    assert launched(shrunk) == names
    before, after = kernels(mod), kernels(shrunk)
    assert [name for name in before if before[name].script() != after[name].script()] == [names[0]]


def test_gpu_a_smaller_tile_for_one_kernel(network_of):
    network = network_of(lambda net, x: net.b(net.a(x)), a=conv(), b=conv(1))
    choices = FittingChoices()
    plain, launches = lowered_for_gpu(network, (1, 16, 64, 96), choices)
    first, second = launched(plain)
    assert choices.shrink(launches[0].template, lambda *_: True)
    shrunk, _ = lowered_for_gpu(network, (1, 16, 64, 96), choices)
    assert launched(shrunk) == [first, second]
    before, after = (kernels(mod) for mod in (plain, shrunk))
    assert after[second].script() == before[second].script()
    assert "T.alloc_local((4, 8))" in before[first].script()
    assert "T.alloc_local((4, 8))" not in after[first].script()


def test_weights_that_are_no_floats_are_refused(relax_main):
    attrs = FusedConv2D((1, 16, 4, 4), (1, 16, 4, 4), (1, 1), (1, 1), (0, 0), (1, 1))
    weight, bias = constant(np.zeros((16, 16, 1, 1), np.float32)), constant(np.zeros(16, np.float16))
    mod = relax_main(lambda b, x: b.emit(ops.fused_conv2d(attrs, x, weight, bias)), attrs.data_shape)
    with pytest.raises(UserError, match="made of float32 weights, and this network has some of float16"):
        LowerKernels(GPU_TEMPLATES)(mod)
