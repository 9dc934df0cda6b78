"""Weights come back as they went, and anything else is refused with a sentence."""

import copy
import dataclasses
import hashlib
import json
import pickle
import struct

import pytest
import safetensors.torch
import torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.networks.weights import state_sha256

INFO = WeightsInfo(
    network="enet",
    classes=("sky", "road", "car"),
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    notes={"epoch": 7},
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_network(ENet(3), INFO, path)
    return path


def write(path, state, **changes):
    raw = {"network": "enet", "classes": ["a", "b", "c"], "palette": [[0, 0, 0]] * 3, "mean": [0] * 3, "std": [1] * 3} | changes
    safetensors.torch.save_file(state, path, metadata={"enet-tvm": json.dumps(raw)})
    return path


def test_roundtrip(tmp_path):
    torch.manual_seed(1)
    network = ENet(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    path = tmp_path / "deep" / "er" / "w.safetensors"
    save_network(network, INFO, path)
    loaded = load_network(path)
    assert not any(module.training for module in loaded.modules())
    assert read_info(path) == INFO
    x = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded(x), network.eval()(x))


def test_relative_path_is_found_from_the_working_directory(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    assert load_network(weights.name).num_classes == 3


def test_wrong_class_count(tmp_path):
    path = write(tmp_path / "w.safetensors", ENet(4).state_dict())
    with pytest.raises(UserError, match=r"fullconv.*3 classes"):
        load_network(path)


def test_tensors_of_another_network(tmp_path):
    path = write(tmp_path / "w.safetensors", torch.nn.Conv2d(3, 3, 1).state_dict())
    with pytest.raises(UserError, match="does not hold the tensors of enet"):
        load_network(path)


def test_unknown_network(tmp_path):
    path = write(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, network="unet")
    with pytest.raises(UserError, match="'unet'"):
        load_network(path)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_file(weights, keep):
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_network(weights)


def test_pickle_is_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not a checkpoint of tensors alone"):
        load_network(path)
    torch.save(ENet(3).state_dict(), path)
    with pytest.raises(UserError, match=r"import it first: enet-tvm import-weights .*--classes 3"):
        load_network(path)


def test_foreign_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(ENet(3).state_dict(), path)
    with pytest.raises(UserError, match=r"import it first: enet-tvm import-weights .*--classes 3 -o \S*w-imported.safetensors"):
        load_network(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="no state dict with the tensors of ENet"):
        load_network(path)
    with pytest.raises(UserError, match="does not say which network"):
        read_info(write(path, {"a": torch.zeros(1)}, palette=[[1, 2]]))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_network(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="there is no file"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("fullconv.bias", "nan"), ("initial.conv.weight", "inf"), ("initial.act.weight", "-inf")]
)
def test_weights_that_are_no_numbers(tmp_path, key, value):
    state = ENet(3).state_dict()
    state[key].view(-1)[-1] = float(value)
    path = write(tmp_path / "w.safetensors", state)
    with pytest.raises(UserError, match=f"NaN or infinite in '{key}'"):
        load_network(path)


def test_a_variance_below_zero(tmp_path):
    state = ENet(3).state_dict()
    state["bottleneck1_0.expand.1.running_var"][0] = -1
    with pytest.raises(UserError, match=r"'bottleneck1_0.expand.1.running_var' has a variance below zero"):
        load_network(write(tmp_path / "w.safetensors", state))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("mean", [float("nan"), 0, 0]),
        ("mean", [0, float("inf"), 0]),
        ("std", [1, 1, 0]),
        ("std", [-1, 1, 1]),
        ("std", [1, float("nan"), 1]),
        ("std", [1, 1, 1e-320]),
    ],
)
def test_a_normalisation_that_gives_no_numbers(tmp_path, key, values):
    """Refused with the file, and where a program says it."""
    path = write(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, **{key: values})
    with pytest.raises(
        UserError, match=rf"cannot normalise pictures: {key} [012] is .*std above zero|\((NaN|Infinity|.*finite|.*number).*"
    ):
        read_info(path)
    with pytest.raises(ValueError, match=key):
        dataclasses.replace(INFO, **{key: tuple(values)})


def test_metadata_nested_too_deep(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata={"enet-tvm": "[" * 100_000})
    with pytest.raises(UserError, match="does not say which network"):
        read_info(path)


def test_counters_of_batches_may_be_missing(tmp_path):
    state = {key: value for key, value in ENet(3).state_dict().items() if not key.endswith("num_batches_tracked")}
    assert load_network(write(tmp_path / "w.safetensors", state)).num_classes == 3


def test_missing_and_surplus_tensors_are_named(tmp_path):
    state = ENet(3).state_dict()
    del state["fullconv.bias"]
    state["aux.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"it lacks 'fullconv.bias' and it has 'aux.weight' besides"):
        load_network(write(tmp_path / "w.safetensors", state))


def test_the_hash_of_a_state_is_of_its_names_types_shapes_and_values():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    first = state_sha256(network)
    assert first == state_sha256(copy.deepcopy(network).to(memory_format=torch.channels_last)), "however it lies in memory"
    assert first == state_sha256(nn.Sequential(*network, nn.ReLU())), "layers without tensors have no part in it"
    others = [copy.deepcopy(network).double(), nn.ModuleDict({"a": network[0], "b": network[1]})]
    hashes = [first, *map(state_sha256, others)]
    with torch.no_grad():
        network[1].running_mean[2] = 1e-30
    assert len({*hashes, state_sha256(network)}) == 4


def test_the_hash_of_a_state_is_pinned():
    """It is the same in every process and release: what artifacts and calibrations say must stay true."""
    network = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(1.5)
        network.bias.fill_(-2.0)
    bias, weight = struct.pack("<f", -2.0), struct.pack("<f", 1.5)
    content = b"bias torch.float32 (1,)\n" + bias + b"weight torch.float32 (1, 1, 1, 1)\n" + weight
    assert state_sha256(network) == hashlib.sha256(content).hexdigest()
