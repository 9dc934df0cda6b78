"""Every record of the table says what its network is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, SegmentationNetwork
from enet_tvm.networks.checkpoint_file import find_state_dicts
from enet_tvm.networks.definition import NetworkDefinition
from enet_tvm.networks.table import DEFAULT_NETWORK, NETWORKS, definition_of, require_network, require_size
from enet_tvm.size import MULTIPLE, Size

each = pytest.mark.parametrize("definition", NETWORKS.values(), ids=NETWORKS.keys())
with_encoder = pytest.mark.parametrize(
    "definition", [definition for definition in NETWORKS.values() if definition.encoder], ids=lambda definition: definition.name
)


def on_meta(definition: NetworkDefinition, classes: int = 7) -> SegmentationNetwork:
    """Return a network without values: there is nothing to initialise and nothing to compute."""
    with torch.device("meta"):
        return definition.new(classes).eval()


def pictures(definition: NetworkDefinition) -> torch.Tensor:
    side = max(2 * definition.divisor, definition.smallest_side)
    return torch.empty(2, 3, side, side + definition.divisor, device="meta")


@each
def test_its_network_takes_what_it_says(definition: NetworkDefinition):
    network, x = on_meta(definition), pictures(definition)
    assert (network.name, network.num_classes) == (definition.name, 7)
    assert definition_of(network) is definition
    assert network(x).shape == (2, 7, *x.shape[2:])
    assert definition.divisor % MULTIPLE == 0
    require_size(network, Size(x.shape[3], x.shape[2]))
    with pytest.raises(UserError, match=f"too small for {definition.title}"):
        require_size(network, Size(definition.smallest_side - 8, 64))


@each
def test_its_head_is_the_layer_of_the_logits(definition: NetworkDefinition):
    network = on_meta(definition)
    state = network.state_dict()
    assert definition.head.outputs(state, "it") == 7
    assert isinstance(network.get_submodule(definition.head.layer), nn.ConvTranspose2d) == definition.head.transposed
    values = {key: torch.arange(value.numel()).reshape(value.shape) for key, value in head_of(definition, 7).items()}
    less = definition.head.without_output({**values, "other": torch.zeros(1)}, 2)
    assert {key: value.shape for key, value in less.items() if key != "other"} == {
        key: value.shape for key, value in head_of(definition, 6).items()
    }
    bias = less[f"{definition.head.layer}.bias"]
    assert bias.tolist() == [0, 1, 3, 4, 5, 6]
    for at, channel in enumerate(bias.tolist()):
        weights = (tensors[f"{definition.head.layer}.weight"] for tensors in (less, values))
        kept, original = (weight.movedim(definition.head.axis, 0) for weight in weights)
        assert torch.equal(kept[at], original[channel])


def head_of(definition: NetworkDefinition, classes: int) -> dict[str, torch.Tensor]:
    """Return the tensors of the last layer, on the meta device."""
    state = on_meta(definition, classes).state_dict()
    return {key: value for key, value in state.items() if key.startswith(f"{definition.head.layer}.")}


@each
def test_its_checkpoints_are_recognised(definition: NetworkDefinition):
    network = on_meta(definition)
    children = [name for name, _ in network.named_children()]
    matching = {other.name for other in NETWORKS.values() if any(other.layers.fullmatch(name) for name in children)}
    assert matching == {definition.name}
    assert all(definition.layers.fullmatch(name) for name in children)
    (found,) = find_state_dicts({"state_dict": {f"net.{key}": value for key, value in network.state_dict().items()}})
    assert (found.naming, found.label, found.ignored) == (definition.name, "state_dict.net", ())
    assert found.tensors.keys() == network.state_dict().keys()


@pytest.mark.quick_cases(1)
@with_encoder
def test_its_decoder_is_all_that_follows_the_encoder(definition: NetworkDefinition):
    network, x, part = on_meta(definition), pictures(definition), definition.encoder
    encoded: list[torch.Size] = []
    network.get_submodule(part.decoder_layers[0]).register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].shape))
    network(x)
    assert encoded == [(2, part.channels, x.shape[2] // part.reduction, x.shape[3] // part.reduction)]
    called: list[str] = []
    for name, child in network.named_children():
        child.register_forward_hook(lambda *_, name=name: called.append(name))
    assert part.encode(network, x).shape == encoded[0]
    assert called + list(part.decoder_layers) == [name for name, _ in network.named_children()]


@each
def test_its_costs_are_those_of_the_paper(definition: NetworkDefinition):
    """With 20 classes, Cityscapes' 19 and void, as the papers have it."""
    stored = sum(parameter.numel() for parameter in on_meta(definition, 20).parameters())
    assert definition.costs is not None
    assert stored == pytest.approx(definition.costs.parameters, rel=0.02)


def test_a_module_that_is_none_of_them():
    assert definition_of(nn.Conv2d(3, 2, 1)) is None
    require_size(nn.Conv2d(3, 2, 1), Size(1, 1))


def test_names():
    assert require_network(DEFAULT_NETWORK).build is ENet
    with pytest.raises(UserError, match="no network 'unet'; choose one of enet, erfnet, segnet"):
        require_network("unet")
