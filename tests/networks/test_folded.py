from __future__ import annotations

import torch
from torch import nn

from enet_tvm.networks import ENet
from enet_tvm.networks.folded import folded


def test_the_same_network_without_batch_norm():
    torch.manual_seed(0)
    network = ENet(5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1)
            nn.init.normal_(module.bias)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network, lean = network.double(), folded(network.double())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    x = torch.randn(1, 3, 32, 48, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(lean(x), network(x), rtol=1e-9, atol=1e-9)
    for name, value in network.float().state_dict().items():
        torch.testing.assert_close(value, before[name], msg=f"{name} of the original has changed")
