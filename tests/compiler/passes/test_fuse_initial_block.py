from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import InitialBlockAttrs
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.networks.enet import InitialBlock

SHAPE = (1, 3, 4, 8)


@pytest.fixture
def passed(transformed):
    """The module after folding and this pass, checked against PyTorch."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE, **options) -> tvm.IRModule:
        templates = cpu_templates(options.get("unit", VectorUnit(16, 32)))
        return transformed(network, shape, FoldBatchNorm(), FuseInitialBlock(templates), **options)

    return run


@pytest.mark.parametrize(("channels", "unit"), [(8, VectorUnit(4, 16)), (16, VectorUnit(16, 32))])
def test_enets_block_is_one_operator(randomised, passed, operators, channels: int, unit: VectorUnit):
    mod = passed(randomised(InitialBlock(3, channels)), unit=unit)
    assert operators(mod) == ["initial_block"]


def test_layers_are_named(randomised, passed):
    mod = passed(randomised(nn.Sequential(InitialBlock())))
    binding = mod["main"].body.blocks[0].bindings[0]
    assert set(InitialBlockAttrs.from_call(binding.value).layers) == {"0.conv", "0.pool", "0.norm", "0.act"}


def test_one_slope_for_all_channels(network_of, passed, operators):
    network = block_like(network_of)
    network.act = nn.PReLU()
    assert operators(passed(network)) == ["initial_block"]


def block_like(network_of, function=None, **layers: nn.Module) -> nn.Module:
    """Return a network like the initial block, with some of it replaced."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.act(net.norm(torch.cat([net.conv(x), net.pool(x)], 1)))

    usual = {
        "conv": nn.Conv2d(3, 13, 3, stride=2, padding=1),
        "pool": nn.MaxPool2d(2),
        "norm": nn.BatchNorm2d(16),
        "act": nn.PReLU(16),
    }
    return network_of(function or forward, **{**usual, **layers})


def cat(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.norm(torch.cat([net.conv(x), net.pool(x)], 1))


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("function", "layers"),
    [
        (lambda net, x: net.act(net.norm(torch.cat([net.pool(x), net.conv(x)], 1))), {}),
        (lambda net, x: net.act(net.norm(torch.cat([net.conv(x), net.pool(2 * x)], 1))), {}),
        (lambda net, x: (lambda y: net.act(y) + y)(cat(net, x)), {}),
        (lambda net, x: net.act(torch.cat([net.conv(x), net.pool(x)], 1)), {}),
        (None, {"conv": nn.Conv2d(3, 13, 3, stride=2, padding=2, dilation=2)}),
        (None, {"conv": nn.Conv2d(3, 13, 1, stride=2)}),
        (None, {"pool": nn.MaxPool2d(4, stride=2, padding=1)}),
        (None, {"pool": nn.AvgPool2d(2)}),
        (None, {"conv": nn.Conv2d(3, 15, 3, stride=2, padding=1), "norm": nn.BatchNorm2d(18), "act": nn.PReLU(18)}),
    ],
    ids=["order", "inputs", "read twice", "no norm", "dilated", "1x1", "4x4 pool", "average", "18 channels"],
)
def test_other_blocks_are_left(network_of, passed, operators, function, layers: dict[str, nn.Module]):
    """And compute what they did."""
    assert "initial_block" not in operators(passed(block_like(network_of, function, **layers)))


@pytest.mark.parametrize("act", [nn.PReLU(16), nn.PReLU(), nn.ReLU()], ids=str)
def test_pooling_3x3(network_of, passed, operators, act: nn.Module):
    """As other implementations of ENet have it; the padding never wins."""
    assert operators(passed(block_like(network_of, pool=nn.MaxPool2d(3, stride=2, padding=1), act=act))) == ["initial_block"]


def test_relu(network_of, passed, operators):
    assert operators(passed(block_like(network_of, lambda net, x: F.relu(cat(net, x))))) == ["initial_block"]


def test_a_scale_that_is_no_channels(network_of, passed, operators):
    """Multiplication and addition that no batch norm made: along the width, as wide as there are channels."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled = net.pool(x) * torch.arange(1.0, 4) + torch.arange(3.0)
        return net.act(torch.cat([net.conv(x), pooled], 1))

    passed(block_like(network_of, function), (2, 3, 4, 6))


@pytest.mark.parametrize("shape", [(1, 3, 5, 8), (1, 3, 4, 7)])
def test_odd_pictures_are_left(network_of, passed, operators, shape: tuple[int, int, int, int]):
    """The convolution's last window reaches over the edge there, the pooling's does not: their sizes differ."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.act(net.norm(torch.cat([net.conv(x)[:, :, : shape[2] // 2, : shape[3] // 2], net.pool(x)], 1)))

    assert "initial_block" not in operators(passed(block_like(network_of, function), shape))
