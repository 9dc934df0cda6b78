from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from enet_tvm.agreement import PICTURES, PICTURES_MIOU
from enet_tvm.artifact import MANIFEST_NAME
from enet_tvm.cli.main import main
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.files import sha256
from enet_tvm.networks import load_network, read_info, save_network
from enet_tvm.size import Size


def verify(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["verify", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_compiled_network_agrees(compiled_enet, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    figures = tmp_path / "figures.json"
    assert verify(compiled_enet.directory, "--synthetic", 3, "--weights", compiled_enet.weights, "--json", figures) == 0
    assert "passed" in capsys.readouterr().out
    content = json.loads(figures.read_text())
    assert content["passed"] is True
    assert content["pictures"] == 3
    assert content["pixels"] == 3 * 64 * 48
    assert content["label_agreement"] >= PICTURES["float32"]
    assert content["max_abs_logit_diff"] < 1e-3
    assert content["miou_diff"] <= PICTURES_MIOU["float32"]
    assert "first_parting" not in content


def test_pictures_without_labels_have_no_miou(compiled_enet, tmp_path: Path):
    for number, (picture, _) in enumerate(SyntheticStreet(Size(50, 70), 2)):
        picture.save(tmp_path / f"{number}.png")
    figures = tmp_path / "figures.json"
    assert verify(compiled_enet.directory, "--images", tmp_path, "--weights", compiled_enet.weights, "--json", figures) == 0
    assert json.loads(figures.read_text())["miou_diff"] is None


def test_a_limit_on_logits(compiled_enet, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Rounding alone breaks a limit of nothing, and no layer is to blame."""
    options = ["--synthetic", 1, "--weights", compiled_enet.weights, "--json", tmp_path / "f.json"]
    assert verify(compiled_enet.directory, *options, "--max-logit-diff", 0) == 1
    assert "no layer parts" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["first_parting"] is None


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("initial.conv", "initial"),
        ("bottleneck1_2.expand.0", "bottleneck1_2"),
        ("bottleneck2_3.conv.1", "bottleneck2_3.conv"),
        ("bottleneck4_0.conv.0", "bottleneck4_0.conv"),
        ("bottleneck5_0.shortcut.0", "bottleneck5_0"),
        ("fullconv", "fullconv"),
    ],
)
def test_the_first_wrong_layer_is_named(changed: str, found: str, compiled_enet, tmp_path: Path):
    """PyTorch with one changed layer against the module without: that layer, or what it was fused into, is to blame."""
    artifact, weights, figures = tmp_path / "artifact", tmp_path / "changed.safetensors", tmp_path / "figures.json"
    network = load_network(compiled_enet.weights)
    with torch.no_grad():
        network.get_submodule(changed).weight.neg_()
    save_network(network, read_info(compiled_enet.weights), weights)
    shutil.copytree(compiled_enet.directory, artifact)
    manifest = json.loads((artifact / MANIFEST_NAME).read_text())
    manifest["hashes"]["weights"] = sha256(weights)
    (artifact / MANIFEST_NAME).write_text(json.dumps(manifest))

    assert verify(artifact, "--synthetic", 1, "--weights", weights, "--json", figures) == 1
    layer = json.loads(figures.read_text())["first_parting"]["layer"]
    assert layer == found or layer.startswith(f"{found}.")
