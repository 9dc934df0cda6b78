"""Which convolutions become one bottleneck, and that the others are left as they are."""

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

from enet_tvm.compiler.dataflow import Dataflow, layer_of
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D, spec_of
from enet_tvm.compiler.passes.fuse_bottlenecks import FuseBottlenecks
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D

SHAPE = (1, 16, 6, 8)
TEMPLATES = gpu_templates(GpuUnit(2, 128))
Forward = Callable[[Any, torch.Tensor], Any]


@pytest.fixture
def network(network_of) -> Callable[[Forward], nn.Module]:
    """Makes ``network(forward)`` one with the convolutions of bottlenecks."""

    def make(forward: Forward) -> nn.Module:
        return network_of(
            forward,
            conv=nn.Conv2d(16, 16, 3, padding=1),
            long=nn.Conv2d(16, 16, (5, 1), padding=(2, 0)),
            doubled=nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1),
            same=nn.Conv2d(16, 16, 1),
            logits=nn.ConvTranspose2d(16, 5, 2, stride=2),
            large=nn.ConvTranspose2d(16, 5, 3, stride=2, padding=1, output_padding=1),
            expand=nn.Conv2d(16, 64, 1),
            reduce=nn.Conv2d(64, 16, 1),
            other=nn.Conv2d(64, 16, 1),
            wide=nn.Conv2d(64, 16, 3, padding=1),
            halve=nn.Conv2d(64, 16, 2, stride=2),
            shifted=nn.Conv2d(64, 16, 2, stride=2, padding=1),
            pool=nn.MaxPool2d(2, return_indices=True),
            unpool=nn.MaxUnpool2d(2),
            odd=nn.Conv2d(16, 15, 1),
            last=nn.PReLU(64),
        )

    return make


def fused(module: nn.Module) -> tvm.IRModule:
    return tvm.transform.Sequential([FuseConv2D(TEMPLATES), FuseBottlenecks(TEMPLATES)])(from_torch(module, SHAPE))


def specs(mod: tvm.IRModule) -> list[FusedBottleneck | FusedConv2D]:
    return [spec for binding in Dataflow(mod).bindings if (spec := spec_of(binding.value)) is not None]


def downsampled(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a bottleneck that downsamples begins with, and what its window indices are good for."""
    pooled, places = net.pool(x)
    return net.halve(x), pooled, net.unpool(pooled, places)


CHAINS: dict[str, tuple[Forward, list[list[str]]]] = {
    "whole": (lambda net, x: net.reduce(net.expand(torch.relu(net.conv(x)))), [["conv", "expand", "reduce"]]),
    "5x1": (lambda net, x: net.reduce(net.expand(net.long(x))), [["long", "expand", "reduce"]]),
    "no reduce": (lambda net, x: net.wide(net.expand(net.conv(x))), [["conv", "expand"], ["wide"]]),
    "a transposed convolution": (
        lambda net, x: net.reduce(net.expand(torch.relu(net.doubled(x)))),
        [["doubled", "expand", "reduce"]],
    ),
    "a transposed convolution after it": (
        lambda net, x: net.logits(net.same(net.conv(x))),
        [["conv", "same", "logits"]],
    ),
    "a transposed convolution after it, of neighbours": (
        lambda net, x: net.large(net.same(net.conv(x))),
        [["conv", "same"], ["large"]],
    ),
    "no convolution": (lambda net, x: net.reduce(net.expand(x)), [["expand", "reduce"]]),
    "two after it": (
        lambda net, x: (lambda y: (net.reduce(y), net.other(y)))(net.expand(net.conv(x))),
        [["conv", "expand", "other", "reduce"]],
    ),
    "three after it": (
        lambda net, x: (lambda y: (net.reduce(y), net.wide(y), net.other(y)))(net.expand(net.conv(x))),
        [["conv", "expand", "other", "reduce"], ["wide"]],
    ),
    "the convolution read twice": (
        lambda net, x: (lambda y: (net.reduce(net.expand(y)), y))(net.conv(x)),
        [["conv"], ["expand", "reduce"]],
    ),
    "the convolution read for the shortcut": (
        lambda net, x: (lambda y: net.expand(y) + torch.cat([y, y, y, y], 1))(net.conv(x)),
        [["conv"], ["expand"]],
    ),
    "channels that no tile divides": (lambda net, x: net.odd(net.conv(x)), [["conv"], ["odd"]]),
    "2x2 after it": (lambda net, x: net.halve(net.expand(net.conv(x))), [["conv", "expand", "halve"]]),
    "2x2 across cells": (lambda net, x: net.shifted(net.expand(net.conv(x))), [["conv", "expand"], ["shifted"]]),
    "pooled": (lambda net, x: downsampled(net, net.expand(net.conv(x))), [["conv", "expand", "pool", "halve"]]),
    "pooled, and no convolution": (lambda net, x: downsampled(net, net.expand(x)), [["expand", "pool", "halve"]]),
    "a 3x3 after it": (lambda net, x: net.wide(net.expand(x)), [["expand"], ["wide"]]),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_fused(network, name: str):
    forward, expected = CHAINS[name]
    found = [spec for spec in specs(fused(network(forward))) if spec.layers]
    # Additions and activations that are no module of their own have made-up names.
    modules = set(dict(network(forward).named_modules()))
    assert [[layer for layer in spec.layers if layer in modules] for spec in found] == expected


def test_the_shortcut_comes_from_before(network):
    """In a bottleneck it is what the one before it wrote beside the narrow result."""

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        first = net.last(net.expand(net.conv(x)))
        return net.last(net.expand(net.conv(net.reduce(first))) + first)

    found = specs(fused(network(forward)))
    assert [type(spec) for spec in found] == [FusedBottleneck, FusedBottleneck]
    assert [spec.expand.residual for spec in found if isinstance(spec, FusedBottleneck)] == ["none", "add"]


def test_both_results_keep_their_names(network):
    mod = fused(network(lambda net, x: (lambda y: (y, net.reduce(y)))(net.expand(net.conv(x)))))
    names = [str(binding.var.name) for binding in Dataflow(mod).bindings]
    assert {"expand", "reduce"} <= {layer_of(binding.var) for binding in Dataflow(mod).bindings}
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("ways", "kept"), [(0, False), (1, True)], ids=["none other", "another"])
def test_what_nobody_else_reads_is_no_output(network, ways: int, kept: bool):
    (spec,) = specs(fused(network(lambda net, x: (lambda y: (net.reduce(y), *[y] * ways))(net.expand(net.conv(x))))))
    assert isinstance(spec, FusedBottleneck)
    assert spec.kept is kept
    assert ("out" in spec.outputs) is kept


RESULTS: dict[str, tuple[Forward, list[str], tuple[int, ...]]] = {
    "reduced": (
        lambda net, x: (lambda y: (y, net.reduce(y)))(torch.relu(net.expand(net.conv(x)))),
        ["reduce"],
        (1, 16, 6, 8),
    ),
    "downsampled": (
        lambda net, x: downsampled(net, net.last(net.expand(net.conv(x)))),
        ["halve", "unpool"],
        (1, 16, 3, 4),
    ),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", RESULTS)
def test_all_results_are_right(network, tmp_path: Path, name: str):
    forward, layers, shape = RESULTS[name]
    module = network(forward)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    made = cuda_network(from_torch(module, SHAPE), "jetson-tx1")
    assert [launch.layers[-1] for launch in made.launches] == layers
    assert made.launches[0].shape == shape
    actual = made.run(compile_fibers(made.source, tmp_path), x.numpy())
    with torch.no_grad():
        expected = module(x)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)
