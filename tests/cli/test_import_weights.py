"""`enet-tvm import-weights`."""

import json

import pytest
import torch
import typer
from pytorch_enet import random_state
from typer.testing import CliRunner

from enet_tvm.cli.import_weights import command
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, load_network, read_info


def run(*arguments: object):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def public(tmp_path):
    path = tmp_path / "ENet"
    torch.save({"epoch": 3, "miou": 0.5, "state_dict": random_state(12), "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def test_a_public_network(public, tmp_path):
    output = run(public, "-o", tmp_path / "w.safetensors", "--json", tmp_path / "w.json").output
    assert "enet with 11 classes: sky, building" in output
    assert "taken for trained on camvid" in output
    assert "initial_pool = 3" in output
    assert "output 11, for pixels without a label, was left out" in output
    assert load_network(tmp_path / "w.safetensors").variant.initial_pool == 3
    assert read_info(tmp_path / "w.safetensors").notes == {"imported_from": "ENet, a checkpoint of PyTorch-ENet"}
    assert json.loads((tmp_path / "w.json").read_text())["variant"]["epsilon"] == 1e-5


def test_a_network_of_ones_own(tmp_path):
    torch.save({"model": ENet(3).state_dict()}, tmp_path / "x.pt")
    (tmp_path / "classes.txt").write_text("road 128 64 128\nsky\ngrass, 0, 128, 0\n")
    options = ("--classes", tmp_path / "classes.txt", "--mean", "imagenet", "--std", "0.2,0.3,0.4")
    output = run(tmp_path / "x.pt", "-o", tmp_path / "w.safetensors", *options, "--variant", "epsilon=1e-5").output
    assert "enet with 3 classes: road, sky, grass" in output
    assert "found under 'model'" in output
    info = read_info(tmp_path / "w.safetensors")
    assert (info.mean, info.std) == ((0.485, 0.456, 0.406), (0.2, 0.3, 0.4))
    assert info.palette == ((128, 64, 128), (128, 0, 0), (0, 128, 0))
    assert info.variant == {"epsilon": 1e-5}
    assert load_network(tmp_path / "w.safetensors").num_classes == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--classes pascal", "no class set 'pascal' and no such file"),
        ("--classes 7", "12 outputs and 7 classes has 7"),
        ("--std 0", "--std is '0'"),
        ("--mean nan", "--mean is 'nan'"),
        ("--variant depth=3", "'depth' is not an option"),
        ("--variant depth", "key=value"),
        ("--state ema", "'ema' means none of them"),
    ],
)
def test_bad_options_write_nothing(public, options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run(public, "-o", tmp_path / "w.safetensors", *options.split())
    assert not (tmp_path / "w.safetensors").exists()
