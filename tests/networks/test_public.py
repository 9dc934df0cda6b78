"""Weights in the naming of PyTorch-ENet become the same network here; its reference is written from its description."""

from __future__ import annotations

import pytest
import torch
from pytorch_enet import Reference, State, random_state
from torch import Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet
from enet_tvm.networks.public import convert_public_state
from enet_tvm.networks.variant import ENetVariant


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Up to rounding, of which the untrained network's large values have much."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(12)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("slopes", [{}, {"encoder_slope": False}, {"decoder_slope": True}], ids=str)
@torch.no_grad()
def test_logits_are_those_of_the_reference(slopes):
    state = random_state(12, **slopes)
    x = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    expected = Reference(state)(x)
    assert_same(convert_public_state(state)(x), expected)
    assert_same(convert_public_state(state, void=0)(x), expected[:, 1:])


def test_shapes_select_the_variant(state):
    network = convert_public_state(state)
    assert network.variant == ENetVariant(
        epsilon=1e-5,
        biases=False,
        initial_pool=3,
        inner_width="input",
        asymmetric_first="vertical",
        normalise_between=True,
        activate_expansion=True,
        slopes="layer",
        upsampling_kernel=2,
        head_kernel=3,
        decoder_dropout=0.1,
    )
    assert sum(p.numel() for p in network.parameters()) == sum(
        value.numel() for name, value in state.items() if not name.endswith(("running_mean", "running_var", "tracked"))
    )


def test_counters_of_batches_may_be_missing(state):
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert isinstance(convert_public_state(old), ENet)


def test_tensors_of_something_else(state):
    def refused(sentence: str, content: State) -> None:
        with pytest.raises(UserError, match=sentence):
            convert_public_state(content)

    refused("no convolution", {})
    refused("no tensor 'head.weight'", state | {"head.weight": torch.zeros(1)})
    refused("bottleneck2_3.expand.0.weight", {k: v for k, v in state.items() if k != "asymmetric2_3.ext_conv3.0.weight"})
    refused(r"'initial.conv.weight'.*\(13, 4, 3, 3\)", state | {"initial_block.main_branch.weight": torch.zeros(13, 4, 3, 3)})
    refused("'upsampling_kernel' is not an option", state | {"upsample4_0.ext_tconv1.weight": torch.zeros(32, 32, 4, 4)})
    refused("NaN or infinite in 'fullconv.weight'", state | {"transposed_conv.weight": torch.full((16, 12, 3, 3), torch.nan)})
