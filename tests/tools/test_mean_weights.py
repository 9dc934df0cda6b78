"""`tools/mean_weights.py`: the mean of two weights files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripts import run_script

from enet_tvm.networks import ENet, WeightsInfo, load_network, read_info, save_network

SCRIPT = Path(__file__).parents[2] / "tools/mean_weights.py"
INFO = WeightsInfo("enet", ("road", "sky"), ((0, 0, 0), (1, 1, 1)), (0.5,) * 3, (0.2,) * 3)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    for path, seed in zip(paths, (1, 2), strict=True):
        torch.manual_seed(seed)
        network = ENet(2)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                torch.nn.init.uniform_(buffer, 0.5, 2.0)
        save_network(
            network,
            replace(INFO, notes={"val": {"miou": 0.5}, "held_out": {}, "epoch": seed, "recipe": {"epochs": seed}}),
            path,
        )
    return paths


def test_every_tensor_is_the_mean(two, tmp_path):
    result = run_script(SCRIPT, *two, "-o", tmp_path / "mean.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, mean = (load_network(path).state_dict() for path in (*two, tmp_path / "mean.safetensors"))
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (first[name] + second[name]) / 2, rtol=0, atol=0)
    assert not torch.equal(mean["initial.conv.weight"], first["initial.conv.weight"])
    notes = read_info(tmp_path / "mean.safetensors").notes
    assert notes.keys() == {"recipe", "mean_of"}, json.dumps(notes)  # the figures were of the second file
    assert notes["recipe"] == {"epochs": 2}
    assert [name.split()[0] for name in notes["mean_of"]] == ["first.safetensors", "second.safetensors"]


def test_other_classes_are_refused_in_a_sentence(two, tmp_path):
    save_network(ENet(2), replace(INFO, classes=("road", "tree")), tmp_path / "other.safetensors")
    result = run_script(SCRIPT, two[0], tmp_path / "other.safetensors", "-o", tmp_path / "mean.safetensors")
    assert result.exit_code == 1
    assert "differ in their classes" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "mean.safetensors").exists()
