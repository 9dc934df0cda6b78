from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
import tvm
from torch import nn

from enet_tvm.dataflow import Dataflow, constant, is_call
from enet_tvm.errors import UserError
from enet_tvm.frontend.torch_import import from_torch
from enet_tvm.kernels.gpu_tile import GpuUnit
from enet_tvm.ops import FusedConv2D, fused_conv2d
from enet_tvm.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.passes.fuse_conv2d import FuseConv2D
from enet_tvm.passes.lower_gpu_kernels import LowerGpuKernels
from enet_tvm.passes.lower_kernels import LAUNCHES

UNIT = GpuUnit(2, 80)


def launched(mod: tvm.IRModule) -> list[str]:
    values = [binding.value for binding in Dataflow(mod).bindings]
    return [str(value.args[0].name_hint) for value in values if is_call(value, "relax.call_tir")]


def kernels(mod: tvm.IRModule) -> dict[str, tvm.tirx.PrimFunc]:
    return {g.name_hint: f for g, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}


def lowered(network: nn.Module, shape: tuple[int, ...], smaller: dict[str, int] | None = None) -> tvm.IRModule:
    passes = [FoldBatchNorm(), FuseConv2D(), LowerGpuKernels(UNIT, smaller)]
    return tvm.transform.Sequential(passes)(from_torch(network, shape))


def conv(kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(16, 16, kernel, **{"padding": kernel // 2, **options})


def test_nothing_of_the_dialect_is_left(fused_enet: tvm.IRModule, operators):
    mod = LowerGpuKernels(UNIT)(fused_enet)
    assert set(operators(mod)) == {"call_tir"}
    assert set(kernels(mod)) == set(launched(mod))
    assert all("T.thread_binding" in kernel.script() for kernel in kernels(mod).values())


def test_launches_are_described_in_order(fused_enet: tvm.IRModule):
    mod = LowerGpuKernels(UNIT)(fused_enet)
    described = [json.loads(str(text)) for text in mod["main"].attrs[LAUNCHES]]
    assert [launch["kernel"] for launch in described] == launched(mod)
    assert {(launch["block"], launch["pad"]) for launch in described} == {(0, 0)}
    assert Counter(len(launch["shape"]) for launch in described) == {4: len(described)}
    assert sum(launch["flops"] == 0 for launch in described) == 2  # the poolings


def test_equal_kernels_are_made_once(network_of):
    layers = {name: conv() for name in "abcd"}
    network = network_of(lambda net, x: net.d(torch.relu(net.c(torch.relu(net.b(torch.relu(net.a(x))))))), **layers)
    names = launched(lowered(network, (1, 16, 4, 6)))
    assert len(names) == 4
    assert names[0] == names[1] == names[2] != names[3]


def test_kernels_of_one_name_are_told_apart_and_keep_it(network_of):
    """A name does not say the padding; which of the two is to be smaller must be the same kernel in every attempt."""
    network = network_of(lambda net, x: net.b(net.a(x)), a=conv(padding=1), b=conv(padding=1, padding_mode="zeros"))
    wide = network_of(
        lambda net, x: net.b(torch.relu(net.a(x))) + net.c(x)[:, :, :4, :6],
        a=nn.Conv2d(16, 16, (1, 3), padding=(0, 1)),
        b=nn.Conv2d(16, 16, (1, 3), padding=(0, 1)),
        c=nn.Conv2d(16, 16, (1, 3), padding=(1, 1)),
    )
    assert len(set(launched(lowered(network, (1, 16, 4, 6))))) == 1
    names = launched(lowered(wide, (1, 16, 4, 6)))
    assert len(names) >= 3
    shrunk = lowered(wide, (1, 16, 4, 6), {names[0]: 1})
    assert launched(shrunk)[: len(names)] == names


def test_a_smaller_tile_for_one_kernel(network_of):
    network = network_of(lambda net, x: net.b(net.a(x)), a=conv(), b=conv(1))
    plain = lowered(network, (1, 16, 64, 96))
    first, second = launched(plain)
    shrunk = lowered(network, (1, 16, 64, 96), {first: 1})
    assert launched(shrunk) == [first, second]
    before, after = (kernels(mod) for mod in (plain, shrunk))
    assert after[second].script() == before[second].script()
    assert "T.alloc_local((2, 16))" in before[first].script()
    assert "T.alloc_local((2, 16))" not in after[first].script()


def test_weights_that_are_no_floats_are_refused(relax_main):
    attrs = FusedConv2D((1, 8, 6, 10), (1, 16, 6, 10), (3, 3), (1, 1), (1, 1), (1, 1))
    weight, bias = constant(np.zeros((16, 8, 3, 3), np.float16)), constant(np.zeros(16, np.float32))
    mod = relax_main(lambda b, x: b.emit(fused_conv2d(attrs, x, weight, bias)), attrs.data_shape)
    with pytest.raises(UserError, match="GPUs compute in float32 here, and this network has weights of float16"):
        LowerGpuKernels(UNIT)(mod)
