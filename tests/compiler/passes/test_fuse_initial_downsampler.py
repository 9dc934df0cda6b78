"""Which initial blocks are fused with what reads them, and that the others are left as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from cuda_fibers import compile_fibers
from cuda_network import cuda_network
from torch import nn

from enet_tvm.compiler.dataflow import Dataflow
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import InitialDownsampler, spec_of
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.fuse_initial_downsampler import FuseInitialDownsampler
from enet_tvm.networks.enet import InitialBlock

SHAPE = (1, 3, 16, 32)
Forward = Callable[[Any, torch.Tensor], Any]


@pytest.fixture
def network(network_of, randomised) -> Callable[[Forward], nn.Module]:
    """Makes ``network(forward)`` one with an initial block and what may read it."""

    def make(forward: Forward) -> nn.Module:
        layers = {
            "initial": InitialBlock(),
            "pool": nn.MaxPool2d(2, return_indices=True),
            "unpool": nn.MaxUnpool2d(2),
            "halve": nn.Sequential(nn.Conv2d(16, 16, 2, stride=2), nn.PReLU(16)),
            "shifted": nn.Conv2d(16, 16, 2, stride=2, padding=1),
        }
        return randomised(network_of(forward, **layers))

    return make


def downsampled(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = net.initial(x)
    pooled, places = net.pool(x)
    return net.halve(x), pooled, net.unpool(pooled, places)


def read_again(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = net.initial(x)
    return net.halve(x), net.pool(x)[0], net.shifted(x)


def returned(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = net.initial(x)
    return x, net.halve(x), net.pool(x)[0]


def across_cells(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = net.initial(x)
    return net.shifted(x), net.pool(x)[0]


@pytest.mark.parametrize(
    ("forward", "fused"), [(downsampled, True), (read_again, False), (returned, False), (across_cells, False)]
)
def test_what_is_fused(network, forward: Forward, fused: bool):
    templates = gpu_templates(GpuUnit(2, 128))
    passes = [FoldBatchNorm(), FuseInitialBlock(templates), FuseConv2D(templates), FuseInitialDownsampler(templates)]
    mod = tvm.transform.Sequential(passes)(from_torch(network(forward), SHAPE))
    found = [spec_of(binding.value) for binding in Dataflow(mod).bindings]
    specs = [spec for spec in found if isinstance(spec, InitialDownsampler)]
    assert len(specs) == fused
    assert not fused or specs[0].layers == ("initial.conv", "initial.pool", "initial.norm", "initial.act", "pool", *LAST)


LAST = ("halve.0", "halve.1")


@pytest.mark.slow
def test_all_results_are_right(network, tmp_path: Path):
    module = network(downsampled)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    made = cuda_network(from_torch(module, SHAPE), "jetson-tx1")
    assert [launch.kernel for launch in made.launches] == ["initial_block_downsampled", "max_unpool2d"]
    actual = made.run(compile_fibers(made.source, tmp_path), x.numpy())
    with torch.no_grad():
        expected = module(x)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * float(theirs.abs().max()))
