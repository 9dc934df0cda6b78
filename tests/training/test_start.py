"""Weights that a training starts from: what is carried over, and what starts anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_enet import random_state

from enet_tvm.data.classes import CAMVID, CITYSCAPES, ClassSet
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, SegNet, WeightsInfo, save_network
from enet_tvm.training.start import read_start

THREE = ClassSet("three", ("road", "sky", "rest"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 255)


def info(names: tuple[str, ...], **other: object) -> WeightsInfo:
    return WeightsInfo("enet", names, tuple((n, n, n) for n in range(len(names))), (0.5,) * 3, (0.2,) * 3, **other)


def carried(network: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Return for each layer whether it is the given one, tensor by tensor."""
    made = network.state_dict()
    layers: dict[str, bool] = {}
    for key, value in made.items():
        same = key in given and value.shape == given[key].shape and torch.equal(value, given[key].to(value.dtype))
        layers[key.split(".")[0]] = layers.get(key.split(".")[0], True) and same
    return layers


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("names", [("a", "b"), ("road", "sky", "tree"), ("sky", "road", "rest")])
def test_weights_of_other_classes_give_all_but_the_last_layer(names, randomised, tmp_path):
    """Also when they are as many: an output means its class."""
    network = randomised(ENet(len(names)))
    save_network(network, info(names), tmp_path / "w.safetensors")
    start = read_start(tmp_path / "w.safetensors", "enet", THREE)
    assert start.network.num_classes == 3
    layers = carried(start.network, network.state_dict())
    assert [layer for layer, same in layers.items() if not same] == ["fullconv"] == list(start.anew)
    assert len(layers) == 29
    assert "28 of 29 layers carried over; fullconv starts anew" in start.sentence("w.safetensors")


def test_weights_of_the_same_classes_give_all(randomised, tmp_path):
    network = randomised(ENet(3))
    save_network(network, info(THREE.names), tmp_path / "w.safetensors")
    start = read_start(tmp_path / "w.safetensors", "enet", THREE)
    assert all(carried(start.network, network.state_dict()).values())
    assert start.anew == ()
    assert "every layer carried over; it was trained on pictures of mean (0.5, 0.5, 0.5)" in start.sentence("w")


def test_checkpoints_as_people_have_them(randomised, tmp_path):
    network = randomised(ENet(3)).half()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"model": ENet(3).state_dict(), "ema": state, "miou": np.float64(0.5)}, tmp_path / "x.pt")
    start = read_start(tmp_path / "x.pt", "enet", THREE)
    assert all(carried(start.network, network.state_dict()).values())
    assert "took 'ema.module', and not 'model'" in start.sentence("x.pt")
    assert "its 3 outputs are taken for the classes of three" in start.sentence("x.pt")
    assert read_start(tmp_path / "x.pt", "enet", CAMVID).anew == ("fullconv",)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("class_set", "anew"), [(CAMVID, ()), (CITYSCAPES, ("fullconv",))])
def test_a_public_network_brings_its_variant(class_set, anew, tmp_path):
    torch.save(random_state(12), tmp_path / "c.pth")
    start = read_start(tmp_path / "c.pth", "enet", class_set)
    assert start.anew == anew
    assert start.network.num_classes == len(class_set)
    assert start.variant["initial_pool"] == 3
    assert start.network.variant.to_json() == start.variant


@pytest.mark.slow
def test_another_network_and_broken_weights(tmp_path):
    torch.save(SegNet(3).state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match="segnet with 3 outputs, and enet"):
        read_start(tmp_path / "x.pt", "enet", THREE)
    broken = ENet(3)
    with torch.no_grad():
        broken.bottleneck1_0.expand[0].weight[0] = torch.nan
    torch.save(broken.state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"NaN or infinite in 'bottleneck1_0.expand.0.weight'"):
        read_start(tmp_path / "x.pt", "enet", THREE)
