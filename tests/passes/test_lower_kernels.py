from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn
from tvm import relax

from enet_tvm import ops
from enet_tvm.dataflow import Dataflow, constant, is_call, layer_of
from enet_tvm.kernels.register_tile import VectorUnit
from enet_tvm.ops import FusedConv2D
from enet_tvm.passes.block_layout import BlockLayout
from enet_tvm.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.passes.fuse_conv2d import FuseConv2D
from enet_tvm.passes.lower_kernels import LAUNCHES, LowerKernels

UNIT = VectorUnit(16, 32)


def conv(kernel: int = 3, outputs: int = 16, **options) -> nn.Conv2d:
    return nn.Conv2d(16, outputs, kernel, **{"padding": kernel // 2, **options})


def described(mod: tvm.IRModule) -> list[dict]:
    return [json.loads(str(text)) for text in mod["main"].attrs[LAUNCHES]]


def launched(mod: tvm.IRModule) -> list[str]:
    values = [binding.value for binding in Dataflow(mod).bindings]
    return [str(value.args[0].name_hint) for value in values if is_call(value, "relax.call_tir")]


def kernels(mod: tvm.IRModule) -> dict[str, tvm.tirx.PrimFunc]:
    return {g.name_hint: f for g, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}


@pytest.fixture
def lowered(transformed):
    """The module after the pass, checked against PyTorch."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = (1, 16, 4, 6)) -> tvm.IRModule:
        passes = [FoldBatchNorm(), FuseConv2D(), BlockLayout(UNIT.lanes), LowerKernels(UNIT)]
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


@pytest.mark.parametrize(
    "other",
    [conv(padding=2, dilation=2), conv(kernel=1), nn.Sequential(conv(), nn.ReLU()), nn.Sequential(conv(), nn.PReLU(16))],
    ids=["dilation", "size", "relu", "prelu"],
)
def test_different_kernels_are_apart(network_of, lowered, other: nn.Module):
    mod = lowered(network_of(lambda net, x: net.c(net.b(net.a(x))), a=conv(), b=other, c=conv()))
    assert len(set(launched(mod))) == 3


def test_nothing_of_the_dialect_but_conversions_is_left(fused_enet: tvm.IRModule, operators):
    mod = LowerKernels(UNIT)(BlockLayout(UNIT.lanes)(fused_enet))
    assert set(operators(mod)) == {"call_tir"}
    assert not [name for name in kernels(mod) if name not in launched(mod)]


def test_launches_are_described_in_order(fused_enet: tvm.IRModule):
    mod = LowerKernels(UNIT)(BlockLayout(UNIT.lanes)(fused_enet))
    facts = described(mod)
    assert [fact["kernel"] for fact in facts] == launched(mod)
    assert len(facts) == 91
    assert len(kernels(mod)) < 50, "ENet repeats its bottlenecks: fewer kernels than launches"
    calls = [b for b in Dataflow(mod).bindings if is_call(b.value, "relax.call_tir")]
    for fact, binding in zip(facts, calls, strict=True):
        assert fact["layers"][-1] == layer_of(binding.var), "the last layer's value is what the kernel writes"
        stored = binding.var.ty.fields[0] if isinstance(binding.var.ty, relax.TupleType) else binding.var.ty
        n, channels, height, width = fact["shape"]
        block, pad = fact["block"], fact["pad"]
        expected = (n, channels // block, height, width + 2 * pad, block) if block else (n, channels, height, width)
        assert tuple(int(s) for s in stored.shape.values) == expected


def test_every_layer_is_in_one_launch(fused_enet: tvm.IRModule):
    from enet_tvm.networks import ENet

    mod = LowerKernels(UNIT)(BlockLayout(UNIT.lanes)(fused_enet))
    layers = Counter(layer for fact in described(mod) for layer in fact["layers"])
    assert set(layers.values()) == {1}
    working = (nn.Conv2d, nn.ConvTranspose2d, nn.PReLU, nn.ReLU, nn.MaxPool2d, nn.MaxUnpool2d)
    assert {name for name, module in ENet(4).named_modules() if isinstance(module, working)} <= set(layers)


def test_kernels_are_opaque_to_fusion_and_to_scheduling(fused_enet: tvm.IRModule):
    for kernel in kernels(LowerKernels(UNIT)(BlockLayout(UNIT.lanes)(fused_enet))).values():
        assert kernel.attrs["tirx.is_scheduled"]
        assert int(kernel.attrs["op_pattern"]) == 8


def test_lowering_twice_makes_the_same(fused_enet: tvm.IRModule):
    """Compilation is to be deterministic: names, order and code."""
    first, second = (LowerKernels(UNIT)(BlockLayout(UNIT.lanes)(fused_enet)) for _ in range(2))
    assert launched(first) == launched(second)
    assert tvm_ffi.structural_equal(first, second)


def test_kernel_names_say_what_they_do(network_of, lowered):
    layers = {"a": conv(padding=4, dilation=4), "b": conv(1), "c": conv(2, 32, stride=2), "act": nn.PReLU(16)}
    mod = lowered(network_of(lambda net, x: net.c(net.act(net.b(net.a(x)) + x)), **layers), (1, 16, 6, 12))
    names = [name for name in launched(mod) if name.startswith("conv2d")]
    assert names == ["conv2d_3x3_d4_16to16_12x6", "conv2d_1x1_16to16_12x6_add_prelu", "conv2d_2x2_s2_16to32_7x4"]


def test_minimal_filtering_where_it_pays(network_of, lowered):
    """On the tiles of a picture large enough; not for another size of kernel, and not where a shortcut is added."""
    layers = {"a": conv(), "b": conv(padding=2, dilation=2), "c": conv(1), "d": conv(), "act": nn.PReLU(16)}
    mod = lowered(network_of(lambda net, x: net.d(net.c(net.act(net.b(net.act(net.a(x)))))) + x, **layers), (1, 16, 16, 32))
    names = [name for name in launched(mod) if name.startswith("conv2d")]
    assert names == [
        "conv2d_3x3_16to16_32x16_prelu_winograd",
        "conv2d_3x3_d2_16to16_32x16_prelu_winograd",
        "conv2d_1x1_16to16_32x16",
        "conv2d_3x3_16to16_32x16_add",
    ]


def test_weights_that_are_no_constants(relax_main):
    attrs = FusedConv2D((1, 16, 4, 4), (1, 16, 4, 4), (1, 1), (1, 1), (0, 0), (1, 1))
    bias = constant(np.zeros(16, np.float32))
    mod = relax_main(lambda b, x, w: b.emit(ops.fused_conv2d(attrs, x, w, bias)), attrs.data_shape, (16, 16, 1, 1))
    with pytest.raises(ValueError, match="weights must be constants"):
        LowerKernels(UNIT)(BlockLayout(16)(mod))
