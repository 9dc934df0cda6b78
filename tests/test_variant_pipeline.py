"""An ENet unlike the paper's compiles as well: in as many kernels, saying what PyTorch says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from quick_code import unoptimised
from tvm import relax
from variants import PUBLIC

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.pipeline import compile_module
from enet_tvm.networks import ENet, ENetVariant
from enet_tvm.targets import load_target

OTHER = ENetVariant(activate_expansion=True, encoder_activation="relu", decoder_activation="prelu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "shape"),
    [(PUBLIC, (1, 3, 24, 40)), (PUBLIC, (2, 3, 16, 32)), (OTHER, (1, 3, 16, 24))],
)
def test_parity(randomised, variant: ENetVariant, shape: tuple[int, int, int, int]):
    network = randomised(ENet(5, variant))
    compiled = compile_module(from_torch(network, shape), unoptimised(load_target("native").to_tvm()))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).numpy()
    actual = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy())).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    assert len(compiled.launches) == 91
    assert {launch.ops[0] for launch in compiled.launches} == {"conv2d", "conv2d_transpose", "max_pool2d_with_window"}


@pytest.mark.slow
def test_pooling_of_negative_pictures_ignores_the_padding(randomised):
    """Nothing outside the picture takes part in a 3x3 pooling, not even as zeros."""
    network = randomised(ENet(2, PUBLIC))
    torch.nn.init.constant_(network.initial.act.weight, 1.0)  # negative values go through
    compiled = compile_module(from_torch(network, (1, 3, 16, 16)), unoptimised(load_target("native").to_tvm()))
    x = -1 - torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).numpy()
    actual = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy())).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
