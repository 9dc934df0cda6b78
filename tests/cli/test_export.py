"""`enet-tvm export` writes a file and says how it compares."""

import json

import onnx
import pytest
import typer
from torch import nn
from typer.testing import CliRunner

from enet_tvm.cli.export import command
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, save_network


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_network(ENet(2), WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1)), path)
    return path


def test_export(weights, tmp_path, monkeypatch):
    """A small network in place of the one of the weights: that ENet is exported whole is tested in tests/compiler/frontend."""
    small = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: small)
    path = tmp_path / "new" / "enet.onnx"
    result = run("--weights", weights, "--size", "16x8", "-o", path, "--json", tmp_path / "export.json")
    assert result.exit_code == 0
    assert "100.000% of the pixels have PyTorch's logits" in result.output
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [side.dim_value for side in shape.dim] == [1, 3, 8, 16]
    assert json.loads((tmp_path / "export.json").read_text())["opset"] == 18


def test_the_form_is_one_of_two(weights, tmp_path):
    result = run("--weights", weights, "--size", "16x8", "--form", "flat", "-o", tmp_path / "f.onnx")
    assert result.exit_code == 2
    assert "'flat' is not one of" in result.output
    assert not (tmp_path / "f.onnx").exists()


def test_bad_input(weights, tmp_path):
    with pytest.raises(UserError, match="divisible by 8"):
        run("--weights", weights, "--size", "10x10", "-o", tmp_path / "f.onnx")
    with pytest.raises(UserError, match="opset 3"):
        run("--weights", weights, "--size", "16x8", "--opset", 3, "-o", tmp_path / "f.onnx")
    assert not (tmp_path / "f.onnx").exists()
