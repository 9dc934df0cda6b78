"""The portable form computes what the network does, in operators that embedded runtimes have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ERFNet
from enet_tvm.networks.portable import LARGE_FLOAT16, portable


class Unpooled(nn.Module):
    """Pooling, and at once its unpooling of other values."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, kept = self.pool(x)
        return self.unpool(pooled + 1, kept)


@pytest.mark.parametrize("make", [ENet, ERFNet])
def test_a_network_in_portable_form_computes_the_same(make):
    torch.manual_seed(0)
    network = make(4).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    formed = portable(network)
    x = torch.randn(1, 3, 24, 40)
    with torch.inference_mode():
        torch.testing.assert_close(formed(x), network(x), rtol=0, atol=1e-4)
    assert not any(
        isinstance(module, nn.MaxUnpool2d | nn.BatchNorm2d | nn.Dropout2d) or getattr(module, "return_indices", False)
        for module in formed.modules()
    )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@given(st.permutations(range(16)), st.sampled_from([1e-20, 1.0, 1e20]))
@settings(deadline=None, max_examples=50)
def test_unpooling_of_different_values_is_pytorchs(values, scale):
    x = scale * (torch.tensor(values, dtype=torch.float32).reshape(1, 1, 4, 4) - 8)
    network = Unpooled()
    assert torch.equal(portable(network)(x), network(x))


def test_a_value_goes_to_every_maximum():
    x = torch.tensor([[[[1.0, 5.0], [5.0, 2.0]]]])
    assert Unpooled()(x).tolist() == [[[[0, 6], [0, 0]]]]
    assert portable(Unpooled())(x).tolist() == [[[[0, 6], [6, 0]]]]


def test_with_a_factor_of_float16_what_is_close_counts_in_part():
    x = torch.tensor([[[[5e-5, 0.0], [-1.0, -1.0]]]])
    found = portable(Unpooled(), LARGE_FLOAT16)(x)
    torch.testing.assert_close(found, torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]]), rtol=1e-3, atol=0)
    assert torch.tensor(LARGE_FLOAT16, dtype=torch.float16).isfinite()


def test_an_odd_side_is_refused():
    with pytest.raises(UserError, match="take another size"):
        portable(Unpooled())(torch.zeros(1, 1, 3, 4))


def test_other_windows_are_refused():
    with pytest.raises(UserError, match="'0' does not pool in 2x2 windows"):
        portable(nn.Sequential(nn.MaxPool2d(3, return_indices=True)))
