"""What is imported layer by layer is what comes through ``torch.export``, and everything else is left to that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import tvm
from torch import Tensor, nn
from torch.nn import functional as F
from variants import PUBLIC

from enet_tvm.compiler.frontend.layer_import import from_layers
from enet_tvm.compiler.frontend.torch_import import from_export, from_torch
from enet_tvm.networks import ENet, ERFNet

SHAPE = (1, 3, 16, 24)


def assert_equal(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE) -> None:
    layer_by_layer, exported = from_layers(network, shape), from_export(network, shape)
    assert layer_by_layer is not None
    tvm.ir.assert_structural_equal(layer_by_layer, exported)
    assert layer_by_layer.script() == exported.script(), "the variables are named alike"


def unpooled(net: Any, pooled: tuple[Tensor, Tensor], **options: Any) -> Tensor:
    return net.unpool(pooled[0], pooled[1], **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [lambda: ENet(4), lambda: ENet(4, PUBLIC), lambda: ERFNet(4)], ids=["enet", "another enet", "erfnet"]
)
def test_networks_are_imported_as_through_export(randomised, network: Callable[[], nn.Module]):
    assert_equal(randomised(network()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=3),
        nn.Conv2d(3, 4, 1, bias=False),
        nn.ConvTranspose2d(3, 6, 3, stride=2, padding=1, output_padding=1, groups=3),
        nn.ConvTranspose2d(3, 4, (2, 3), stride=(2, 3), dilation=(1, 2), bias=False),
        nn.BatchNorm2d(3, eps=0.5, momentum=0.3),
        nn.PReLU(),
        nn.PReLU(3),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Dropout2d(0.3, inplace=True),
        nn.Identity(),
        nn.MaxPool2d(2),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), ceil_mode=True),
    ],
    ids=repr,
)
def test_each_layer_is_imported_as_through_export(randomised, layer: nn.Module):
    assert_equal(randomised(nn.Sequential(nn.Sequential(nn.ReLU(), layer), nn.ReLU())))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.act(x) + x,
        lambda net, x: torch.cat([x, net.act(x), x], dim=1),
        lambda net, x: torch.cat((x, net.act(x)), -1),
        lambda net, x: F.pad(net.act(x), (1, 2, 3, 4)),
        lambda net, x: F.pad(net.act(x), (0, 0, 0, 0, 1, 0, 2, 1)),
        lambda net, x: net.act(net.act(x)),
        lambda net, x: net.pool(net.act(x))[0],
        lambda net, x: unpooled(net, net.pool(net.act(x))),
        lambda net, x: (lambda pooled: net.unpool(net.act(pooled[0]), pooled[1]) + unpooled(net, pooled))(net.pool(x)),
    ],
)
def test_functions_are_imported_as_through_export(network_of, function: Callable[..., Tensor]):
    layers = {"act": nn.PReLU(3), "pool": nn.MaxPool2d(2, return_indices=True), "unpool": nn.MaxUnpool2d(2)}
    assert_equal(network_of(function, **layers))


def test_one_tensor_in_two_layers(randomised):
    one, other = nn.PReLU(3), nn.PReLU(3)
    other.weight = one.weight
    assert_equal(randomised(nn.Sequential(one, nn.ReLU(), other)))


class Doubled(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _layer, _arguments, output: output + output)
    return layer


def replaced(layer: nn.Module) -> nn.Module:
    layer.forward = lambda x: x + x
    return layer


def double_weights() -> nn.Module:
    return nn.Conv2d(3, 3, 1).double()


@pytest.mark.parametrize(
    "layer",
    [
        Doubled(),
        hooked(nn.ReLU()),
        hooked(nn.Identity()),
        replaced(nn.ReLU()),
        replaced(nn.Identity()),
        double_weights(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)),
        nn.ReLU(inplace=True),
        nn.Sigmoid(),
        nn.Conv2d(3, 3, 3, padding="same"),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Conv2d(4, 3, 1),
        nn.MaxPool2d(3, return_indices=True),
    ],
    ids=lambda layer: f"{layer}",
)
def test_other_layers_are_left_to_export(layer: nn.Module):
    assert from_layers(nn.Sequential(nn.PReLU(3), layer).eval(), SHAPE) is None


@pytest.mark.parametrize("change", [hooked, replaced])
def test_what_was_done_to_the_network_itself_counts(change: Callable[[nn.Module], nn.Module]):
    """Tracing begins with the forward of its type."""
    assert from_layers(change(nn.Sequential(nn.ReLU())).eval(), SHAPE) is None


@pytest.mark.parametrize("change", [hooked, replaced])
def test_what_was_done_to_a_part_is_imported(change: Callable[[nn.Module], nn.Module]):
    assert_equal(nn.Sequential(nn.ReLU(), change(nn.Sequential(nn.ReLU()))).eval())


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: torch.sigmoid(x),
        lambda net, x: net.act(x) + 1,
        lambda net, x: net.act(x) if x.sum() > 0 else x,
        lambda net, x: net.act(x) if x.shape[2] > 8 else x,
        lambda net, x: F.pad(net.act(x), (1, 1), value=1.0),
        lambda net, x: F.pad(net.act(x), (1, 1), mode="reflect"),
        lambda net, x: (net.act(x), x),
        lambda net, x: net.act(x)[:, :2],
        lambda net, x: net.act(x + net.slopes),
        lambda net, x: net.pool(x)[1],
        lambda net, x: net.act(net.pool(x)[1]),
        lambda net, x: torch.cat(net.pool(x), dim=1),
        lambda net, x: unpooled(net, net.pool(x), output_size=(17, 25)),
        lambda net, x: net.pool(x),
    ],
)
def test_other_functions_are_left_to_export(network_of, function: Callable[..., Any]):
    layers = {"act": nn.PReLU(3), "pool": nn.MaxPool2d(2, return_indices=True), "unpool": nn.MaxUnpool2d(2)}
    network = network_of(function, **layers)
    network.register_buffer("slopes", torch.ones(3, 1, 1))
    assert from_layers(network, SHAPE) is None


def test_an_odd_plane_that_is_unpooled_is_left_to_export(network_of):
    """That refuses it with a sentence."""
    layers = {"pool": nn.MaxPool2d(2, return_indices=True), "unpool": nn.MaxUnpool2d(2)}
    assert from_layers(network_of(lambda net, x: unpooled(net, net.pool(x)), **layers), (1, 3, 9, 9)) is None


def test_our_networks_do_without_export(monkeypatch):
    monkeypatch.delattr(torch.export, "export")
    for network in (ENet(3), ERFNet(3)):
        assert from_torch(network.train(), SHAPE) is not None
