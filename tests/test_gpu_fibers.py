"""Whole networks as the CUDA C++ that NVRTC gets, on fibers, against PyTorch: kernels, their order, and what they hand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from certain_pictures import certain
from cuda_fibers import compile_fibers
from cuda_network import SharedPasses, cuda_network
from gpu_targets import GPU_TARGETS
from variants import PUBLIC

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.pipeline import Numerics
from enet_tvm.networks import ENet

SHAPE = (1, 3, 40, 64)


@pytest.fixture(scope="module")
def network(randomised) -> ENet:
    return randomised(ENet(11))


@pytest.fixture(scope="module")
def imported(network: ENet) -> tvm.IRModule:
    return from_torch(network, SHAPE)


@pytest.fixture(scope="module")
def picture(network: ENet) -> tuple[torch.Tensor, np.ndarray]:
    """A picture, and what PyTorch says of it."""
    return certain(network, SHAPE)


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> SharedPasses:
    """Passes of that picture."""
    return SharedPasses(tmp_path_factory.mktemp("fibers"))


@pytest.mark.slow
@pytest.mark.parametrize("target", GPU_TARGETS)
def test_enet(imported: tvm.IRModule, picture: tuple[torch.Tensor, np.ndarray], passes: SharedPasses, target: str):
    x, expected = picture
    actual = passes.run(cuda_network(imported, target), x.numpy())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_an_enet_unlike_the_papers(randomised, tmp_path: Path):
    """Inner PReLUs, other widths and kernels, planes whose pixels no vector divides, and two pictures."""
    network = randomised(ENet(5, PUBLIC))
    x, expected = certain(network, (2, 3, 24, 40))
    made = cuda_network(from_torch(network, tuple(x.shape)), "h100")
    assert any(launch.kernel.startswith("bottleneck") for launch in made.launches)
    actual = made.run(compile_fibers(made.source, tmp_path), x.numpy())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_labels(imported: tvm.IRModule, picture: tuple[torch.Tensor, np.ndarray], tmp_path: Path):
    """The last kernel keeps the largest of each pixel's logits."""
    x, logits = picture
    made = cuda_network(imported, "jetson-tx1", numerics=Numerics(labels=True))
    labels = made.run(compile_fibers(made.source, tmp_path), x.numpy())
    assert labels.dtype == np.uint8
    second, first = np.sort(logits, axis=1)[:, -2:].swapaxes(0, 1)
    clear = first - second > 4e-5 * np.abs(logits).max()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels.reshape(clear.shape)[clear], logits.argmax(1)[clear])
