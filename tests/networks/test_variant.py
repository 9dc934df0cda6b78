"""Variants of ENet: what weights say of theirs comes back, and what does not fit is refused with a sentence."""

import json

import pytest
import safetensors.torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ENetVariant, WeightsInfo, load_network, save_network
from enet_tvm.networks.folded import folded
from enet_tvm.networks.variant import PAPER

OTHER = ENetVariant(biases=False, initial_pool=3, slopes="layer", asymmetric_first="vertical", decoder_activation="prelu")


def info(**changes):
    return WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1), **changes)


def test_only_what_differs_from_the_paper_is_written():
    assert PAPER.to_json() == {}
    assert OTHER.to_json() == {
        "biases": False,
        "initial_pool": 3,
        "slopes": "layer",
        "asymmetric_first": "vertical",
        "decoder_activation": "prelu",
    }
    assert ENetVariant.from_json(OTHER.to_json()) == OTHER
    assert ENetVariant.from_json({}) == PAPER


def test_options_reach_the_layers():
    network = ENet(2, OTHER)
    assert (network.initial.pool.kernel_size, network.initial.pool.padding) == (3, 1)
    assert network.initial.conv.bias is None
    assert network.fullconv.bias is None
    assert network.bottleneck2_3.conv[0].kernel_size == (5, 1)
    assert all(module.num_parameters == 1 for module in network.modules() if isinstance(module, nn.PReLU))
    assert isinstance(network.bottleneck4_1.act, nn.PReLU)
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())


def test_weights_keep_their_variant(tmp_path):
    save_network(ENet(2, OTHER), info(variant=OTHER.to_json()), tmp_path / "w.safetensors")
    assert load_network(tmp_path / "w.safetensors").variant == OTHER


def test_weights_without_one_are_the_papers(tmp_path):
    raw = {"network": "enet", "classes": ["a", "b"], "palette": [[0, 0, 0]] * 2, "mean": [0] * 3, "std": [1] * 3}
    safetensors.torch.save_file(ENet(2).state_dict(), tmp_path / "w", metadata={"enet-tvm": json.dumps(raw)})
    assert load_network(tmp_path / "w").variant == PAPER


@pytest.mark.parametrize(
    ("variant", "sentence"), [({"pool": 3}, "'pool'"), ({"initial_pool": 5}, "'initial_pool'"), ({"epsilon": -1}, "'epsilon'")]
)
def test_unknown_options(tmp_path, variant, sentence):
    save_network(ENet(2), info(variant=variant), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=sentence):
        load_network(tmp_path / "w.safetensors")


def test_a_network_without_biases_folds(randomised):
    import torch

    network = randomised(ENet(2, OTHER)).double()
    x = torch.randn(1, 3, 24, 32, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(folded(network)(x), network(x))
