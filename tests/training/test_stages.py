"""What a stage trains, and its labels."""

import pytest
import torch

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ERFNet, SegNet
from enet_tvm.networks.table import definition_of
from enet_tvm.training.stages import EncoderClassifier, reduce_labels, trained_part, without_supervision


@pytest.mark.parametrize("network", [ENet(5), ERFNet(5)], ids=lambda network: network.name)
def test_the_encoder_has_logits_of_an_eighth_and_a_frozen_decoder(network):
    part = trained_part(network, "encoder")
    assert isinstance(part, EncoderClassifier)
    logits = part(torch.randn(2, 3, 32, 48))
    assert logits.shape == (2, 5, 4, 6)
    logits.sum().backward()
    trained = [name for name, p in part.named_parameters() if p.requires_grad]
    assert all(part.get_parameter(name).grad is not None for name in trained)
    decoder = definition_of(network).encoder.decoder_layers
    assert not any(name.startswith(tuple(f"network.{layer}." for layer in decoder)) for name in trained)
    assert trained_part(network, "network") is network
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("network", [ENet(5), ERFNet(5)], ids=lambda network: network.name)
def test_a_second_classifier_on_the_encoder_is_trained_too(network):
    part = trained_part(network, "network", supervise_encoder=True)
    logits, encoded = part.train()(torch.randn(2, 3, 32, 48))
    assert (logits.shape, encoded.shape) == ((2, 5, 32, 48), (2, 5, 4, 6))
    assert without_supervision(part) is network


def test_a_network_without_a_separate_encoder_is_refused():
    network = SegNet(2)
    assert trained_part(network, "network") is network
    with pytest.raises(UserError, match="SegNet cannot be trained encoder first"):
        trained_part(network, "encoder")


def test_labels_are_those_of_the_cells_middle():
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    labels = (rows * 24 + columns)[None]
    reduced = reduce_labels(labels, 2, 3)
    assert reduced.tolist() == [[[4 * 24 + 4, 4 * 24 + 12, 4 * 24 + 20], [12 * 24 + 4, 12 * 24 + 12, 12 * 24 + 20]]]
    assert torch.equal(reduce_labels(labels, 16, 24), labels)


def test_a_narrow_class_keeps_its_share():
    labels = torch.zeros(1, 64, 64 * 8, dtype=torch.long)
    labels[..., torch.randperm(64 * 8, generator=torch.Generator().manual_seed(0))[:51]] = 1
    share = reduce_labels(labels, 8, 64).float().mean()
    assert share == pytest.approx(0.1, abs=0.05)
