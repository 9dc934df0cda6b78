"""`enet-tvm info` prints and writes the figures of a network."""

import json

import pytest
import typer
from typer.testing import CliRunner

from enet_tvm.artifact import MANIFEST_NAME, Manifest
from enet_tvm.cli.info import command
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, save_network


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_network_by_name(tmp_path):
    result = run("--network", "enet", "--classes", 19, "--json", tmp_path / "info.json")
    assert result.exit_code == 0
    assert all(figure in result.output for figure in ("364,311", "3,447.13", "370,000", "3,830", "bottleneck5_0.unpool"))
    assert json.loads((tmp_path / "info.json").read_text())["total"]["parameters"] == 364_311


def test_network_of_weights_by_block(tmp_path):
    weights = tmp_path / "w.safetensors"
    save_network(ENet(2), WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1)), weights)
    output = run("--weights", weights, "--size", "64x32", "--by-block").output
    assert "2x32x64" in output
    assert "bottleneck5_0" in output
    assert "bottleneck5_0.unpool" not in output
    assert "3,830" not in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--network", "unet", "--classes", 3), "no network 'unet'"),
        (("--network", "enet"), "add --classes"),
        (("--weights", "w", "--classes", 3), "leave --network and --classes out"),
        (("--classes", 3, "--size", "100x100"), "divisible by 8"),
        (("--weights", "nowhere.safetensors"), "there is no file"),
        (("--compiled", "nowhere"), "there is no directory"),
    ],
)
def test_bad_input(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        run(*arguments)


def test_kernels_of_an_artifact(tmp_path):
    kernels = [
        {"name": "conv_0", "ops": ["conv2d", "bias", "prelu"], "layers": ["initial.conv", "initial.act"],
         "output_layout": {"shape": [1, 1, 16, 34, 16]}},
        {"name": "conv_1", "ops": ["conv2d"]},
    ]  # fmt: skip
    manifest = {
        "network": "enet",
        "classes": ["a", "b"],
        "palette": [[0, 0, 0], [1, 1, 1]],
        "input": {"shape": [1, 3, 32, 64], "mean": [0, 0, 0], "std": [1, 1, 1]},
        "output": {"shape": [1, 2, 32, 64]},
        "target": {"name": "t", "triple": "x86_64-linux-gnu", "mcpu": "x86-64", "architecture": "x86_64"},
        "versions": {"enet_tvm": "0", "apache_tvm": "0", "apache_tvm_ffi": "0"},
        "hashes": {"weights": "0" * 64},
        "kernels": kernels,
        "kernel_count": 2,
        "command": "enet-tvm compile",
    }
    model = Manifest.model_validate_json(json.dumps(manifest))
    (tmp_path / MANIFEST_NAME).write_text(model.model_dump_json())
    output = run("--compiled", tmp_path, "--json", tmp_path / "kernels.json").output
    assert "2 kernel launches" in output
    assert "conv2d + bias + prelu" in output
    assert "initial (to act)" in output
    content = json.loads((tmp_path / "kernels.json").read_text())
    assert content["launches"] == 2
    assert content["kernels"][0]["layers"] == ["initial.conv", "initial.act"]
