"""SegNet through the whole pipeline: it says what PyTorch says, and nothing leaves the blocked layout on the way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import tvm
from effort import shared_work
from quick_code import unoptimised
from torch import nn
from tvm import relax

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.pipeline import Compiled, compile_module
from enet_tvm.machine import architecture
from enet_tvm.networks import SegNet
from enet_tvm.targets import load_target


@pytest.fixture(scope="module")
def network(randomised) -> nn.Module:
    return randomised(SegNet(7))


@cache
def compiled(network: nn.Module, shape: tuple[int, int, int, int], target: str = "native") -> Compiled:
    with shared_work():
        return compile_module(from_torch(network, shape), unoptimised(load_target(target).to_tvm()))


def difference(network: nn.Module, module: Compiled, shape: tuple[int, int, int, int]) -> float:
    """Return the largest difference of two logits, as a share of the largest logit."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).numpy()
    actual = relax.VirtualMachine(module.executable, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy())).numpy()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


MORE = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 3, 32, 64), (2, 3, 48, 40), (1, 3, 88, 72))]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 40, 56), *MORE], ids=lambda shape: "x".join(map(str, shape)))
def test_parity_also_where_planes_become_odd(network, shape):
    assert difference(network, compiled(network, shape), shape) < 1e-5


@pytest.mark.slow
def test_one_launch_a_layer_and_none_to_change_a_layout(network):
    module = compiled(network, (1, 3, 40, 56))
    ops = [launch.ops for launch in module.launches]
    assert ops[0] == ("pack",)
    assert [names for names in ops if "pack" in names or "unpack" in names] == [("pack",)]
    assert sum(names[0] == "conv2d" for names in ops) == 26
    assert sum(names == ("max_pool2d_with_window",) for names in ops) == 5
    assert sum(names == ("max_unpool2d",) for names in ops) == 5
    assert len(ops) == 37
    named = {name for launch in module.launches for name in launch.layers}
    assert {"encoder1.pool", "decoder5.unpool", "encoder3.conv3.2", "decoder1.conv1.2", "classifier"} <= named


@pytest.mark.slow
@pytest.mark.skipif(architecture() != "x86_64", reason="the target is one for x86-64")
def test_narrow_vectors(network):
    """Vectors of 4 lanes, as on machines without AVX: other blocks and tiles."""
    shape = (1, 3, 40, 56)
    assert difference(network, compiled(network, shape, "x86-64-v2"), shape) < 1e-5
