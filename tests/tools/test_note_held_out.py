"""`tools/note_held_out.py`: what held-out rides say of a recipe, in the notes of weights that were trained on all of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rides import write_rides
from scripts import run_script

from enet_tvm.data.classes import CAMVID
from enet_tvm.data.rides import judged_data
from enet_tvm.data.transforms import MEAN, STD
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import weights_predictor
from enet_tvm.files import hashed_name
from enet_tvm.networks import ENet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.training.card import describe

SCRIPT = Path(__file__).parents[2] / "tools/note_held_out.py"
INFO = WeightsInfo("enet", CAMVID.names, CAMVID.palette, MEAN, STD)


def save(path: Path, seed: int, **notes: Any) -> Path:
    torch.manual_seed(seed)
    save_network(ENet(len(CAMVID)), replace(INFO, notes=notes), path)
    return path


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return save(tmp_path / "final.safetensors", 1, val={"miou": 0.5}, epoch=7)


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return save(tmp_path / "twin.safetensors", 2, data={"train": "train without 0006R0, 0001TP:-2", "val": "whatever"})


@pytest.mark.slow
def test_the_figures_are_those_of_the_twin(final: Path, twin: Path, tmp_path: Path):
    data, out = write_rides(tmp_path / "rides"), tmp_path / "noted.safetensors"
    held_out = ("--hold-out", "0001TP:-2:", "--hold-out", "0006R0")
    command = [sys.executable, SCRIPT, final, "--twin", twin, "--data", data, *held_out, "--started-from", twin, "-o", out]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    notes = read_info(out).notes
    assert notes.keys() == {"epoch", "started_from", "held_out"}  # the figures on val were of before
    assert notes["started_from"] == hashed_name(twin)
    assert notes["held_out"]["weights"] == str(twin)
    model, figures = weights_predictor(twin, 1), notes["held_out"]["figures"]
    assert list(figures) == ["0001TP:-2 of train", "0006R0 of train"]
    for ride, known in figures.items():
        samples = judged_data(str(data), "train", [ride.split()[0]])
        expected = evaluate(model.forward, samples, samples.class_set, MEAN, STD, samples.paper_size).to_dict()
        assert known["miou"] == pytest.approx(expected["miou"], abs=1e-4)
        assert known["pixels"] == expected["pixels"]
    torch.testing.assert_close(load_network(out).state_dict(), load_network(final).state_dict(), rtol=0, atol=0)
    said = describe(out)
    for figure in figures.values():
        assert f"**{100 * figure['miou']:.2f}**" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--hold-out", "0016E5"], "does not say that it was trained without 0016E5"),
        (["--hold-out", "a:b"], "names no frames of a ride"),
        (["--hold-out", "0006R0", "--twin", "missing"], "there is no file missing"),
    ],
)
def test_what_cannot_be_noted_is_a_sentence(options: list[str], sentence: str, final: Path, twin: Path, tmp_path: Path):
    out = tmp_path / "noted.safetensors"
    result = run_script(SCRIPT, final, "--twin", twin, "--data", tmp_path, "-o", out, *options)
    assert result.exit_code == 1
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_a_twin_of_other_classes(final: Path, tmp_path: Path):
    other = replace(INFO, classes=CAMVID.names[:2], palette=CAMVID.palette[:2])
    save_network(ENet(2), other, tmp_path / "two.safetensors")
    options = ("--twin", tmp_path / "two.safetensors", "--data", tmp_path, "--hold-out", "0006R0", "-o", tmp_path / "noted")
    result = run_script(SCRIPT, final, *options)
    assert "differ in their classes" in " ".join(result.stderr.split())
