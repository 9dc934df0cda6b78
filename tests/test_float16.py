"""Kernels in float16 against PyTorch: those for ARM's and for x86's registers, compiled for this processor.

Where it has no float16, LLVM computes in float32 and rounds after every operation: so whole numbers must come out as they are,
on any machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from every_kind import EveryKind, with_whole_numbers
from torch import Tensor, nn

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import TEMPLATES, cpu_templates
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTemplate
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.end_in_argmax import EndInArgmax
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.lower_kernels import LowerKernels
from enet_tvm.networks.enet import InitialBlock
from enet_tvm.networks.erfnet import Downsampler
from enet_tvm.targets import load_target

UNITS = {"neon": VectorUnit(8, 32, "aarch64"), "avx512fp16": VectorUnit(32, 32)}
"""The registers of processors that compute in float16, of eight and of 32 lanes."""


def run(
    run_relax: Any, network: nn.Module, x: Tensor, unit: VectorUnit, *, labels: bool = False, winograd: bool = True
) -> tuple[np.ndarray, list[Launch]]:
    """Return what a network computes in float16, and its kernels."""
    templates = cpu_templates(unit)
    if not winograd:
        direct = tuple(kind for kind in TEMPLATES if kind is not BlockedWinogradTemplate)
        templates = type(templates)(unit, direct, templates.forms)
    lowering = LowerKernels(templates)
    ending = [EndInArgmax(templates)] if labels else []
    fusing = [FoldBatchNorm(), FuseInitialBlock(templates), FuseConv2D(templates), *ending]
    passes = [*fusing, BlockLayout(templates, "float16"), lowering]
    with torch.inference_mode():
        found = run_relax(from_torch(network.eval(), tuple(x.shape)), x.numpy(), passes=passes)
    return found, lowering.launches


HEADS = {
    "1x1": lambda channels: nn.Conv2d(channels, 11, 1),
    "3x3": lambda channels: nn.Conv2d(channels, 5, 3, padding=1),
    "transposed": lambda channels: nn.ConvTranspose2d(channels, 11, 3, stride=2, padding=1, output_padding=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("channels", "head"), [(16, "1x1"), (8, "3x3"), (32, "transposed")])
@torch.inference_mode()
def test_whole_numbers_are_exact(run_relax, unit: str, channels: int, head: str):
    network = with_whole_numbers(EveryKind(channels, HEADS[head](channels), inner=True), 2)
    x = torch.randint(-3, 4, (2, 3, 20, 28), generator=torch.Generator().manual_seed(channels)).float()
    expected = network(x).numpy()
    assert np.unique(expected).size >= 10, "the test network says too little"
    found, launches = run(run_relax, network, x, UNITS[unit], winograd=False)
    assert sum(launch.layout.dtype == "float16" for launch in launches) >= 8
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
@torch.inference_mode()
def test_the_beginnings_of_networks(run_relax, unit: str):
    """ENet's initial block, with a pooling of either size, and ERFNet's downsamplers."""
    x = torch.randint(-3, 4, (1, 3, 12, 40), generator=torch.Generator().manual_seed(1)).float()
    for first in (InitialBlock(3, 16), nn.Sequential(Downsampler(3, 16), Downsampler(16, 64))):
        network = with_whole_numbers(nn.Sequential(first, nn.Conv2d(16 if isinstance(first, InitialBlock) else 64, 5, 1)), 2)
        found, launches = run(run_relax, network, x, UNITS[unit])
        np.testing.assert_allclose(found, network.eval()(x).numpy(), rtol=2**-10, atol=2**-8)
        assert [launch.layout.dtype for launch in launches[:-1]] == ["float16"] * (len(launches) - 1)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1), (1, 3)])
@torch.inference_mode()
def test_winograd(run_relax, kernel: tuple[int, int]):
    """Its transforms multiply the error of a direct sum, which in float16 is 0.2 % of the outputs' spread, by two or three."""
    torch.manual_seed(1)
    padding = (kernel[0] // 2, kernel[1] // 2)
    network = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, kernel, padding=padding), nn.PReLU(32))
    network.append(nn.Conv2d(32, 32, 1))
    network[4].weight.data = torch.eye(32)[:, :, None, None]
    x = torch.randn(1, 3, 16, 40)
    expected = network.double()(x.double()).numpy()
    found, launches = run(run_relax, network.float(), x, UNITS["neon"])
    assert sum(launch.kernel.endswith("winograd") for launch in launches) == 1
    error = found - expected
    assert 1e-4 < np.sqrt((error**2).mean()) / expected.std() < 6e-3
    assert np.abs(error).max() / expected.std() < 0.08


@torch.inference_mode()
def test_slopes_near_nought_are_kept(run_relax):
    """They are stored as what they are beyond 1, which leaves them an error of half the last place of 1."""
    network = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.PReLU(8), nn.Conv2d(8, 8, 1, bias=False))
    network[0].weight.data = network[2].weight.data = torch.eye(8)[:, :, None, None]
    network[1].weight.data = torch.tensor([0.0, 0.001, 0.01, 0.25, 0.5, 1.0, -0.1, 2.0])
    x = torch.linspace(-64, 64, 8 * 4 * 6).reshape(1, 8, 4, 6).half().float()
    found, _ = run(run_relax, network, x, UNITS["neon"])
    assert np.abs(found - network(x).numpy()).max() <= 64 * 2**-11 + 64 * 2**-11


@torch.inference_mode()
def test_labels_are_those_of_the_logits(run_relax):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.PReLU(16), HEADS["transposed"](16))
    x = torch.randn(1, 3, 16, 24)
    logits, _ = run(run_relax, network, x, UNITS["neon"])
    labels, launches = run(run_relax, network, x, UNITS["neon"], labels=True)
    assert launches[-1].ops[-1] == "argmax"
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, logits.argmax(axis=1))
    assert len(np.unique(labels)) > 2, "nothing to tell apart"


def test_units_are_those_of_targets():
    for name, target in (("neon", "rpi5"), ("avx512fp16", "sapphire-rapids")):
        assert VectorUnit.of(load_target(target).to_tvm(), "float16") == UNITS[name]
        assert "float16" in dot_products(load_target(target).to_tvm())
