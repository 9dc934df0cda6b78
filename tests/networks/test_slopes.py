"""The slopes of a network's activations, in order of depth."""

import pytest
import torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ENetVariant, SegNet
from enet_tvm.networks.slopes import prelu_slopes


def test_enet_has_67_prelus_before_the_border():
    """As many as the paper's figure shows."""
    slopes = prelu_slopes(ENet(3))
    assert [one.kind for one in slopes] == ["prelu"] * 67 + ["relu"] * 15
    assert [one.part for one in slopes] == ["encoder"] * 67 + ["decoder"] * 15
    assert (slopes[0].layer, slopes[66].block, slopes[67].block) == ("initial.act", "bottleneck3_8", "bottleneck4_0")
    assert all((one.mean, one.minimum, one.maximum) == (0.25, 0.25, 0.25) for one in slopes[:67])
    assert all((one.mean, one.minimum, one.maximum, one.count) == (0, 0, 0, 0) for one in slopes[67:])


def test_order_is_that_of_the_forward_pass():
    network = ENet(3).eval()
    called = []
    for name, module in network.named_modules():
        if isinstance(module, nn.PReLU | nn.ReLU):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, 16, 16))
    assert [one.layer for one in prelu_slopes(network)] == called


def test_figures_are_of_the_slopes():
    network = ENet(3, ENetVariant(decoder_activation="prelu"))
    with torch.no_grad():
        network.bottleneck5_1.act.weight.copy_(torch.linspace(-0.5, 1.0, 16))
    last = prelu_slopes(network)[-1]
    assert (last.layer, last.kind, last.part, last.count) == ("bottleneck5_1.act", "prelu", "decoder", 16)
    assert (last.mean, last.minimum, last.maximum) == pytest.approx((0.25, -0.5, 1.0))


def test_networks_without_prelu():
    with pytest.raises(UserError, match="no PReLU"):
        prelu_slopes(SegNet(2))


def test_slopes_that_are_not_numbers():
    network = ENet(2)
    nn.init.constant_(network.initial.act.weight, float("nan"))
    with pytest.raises(UserError, match=r"'initial\.act' has slopes that are not numbers"):
        prelu_slopes(network)
