"""`benchmarks/held_out_rides.py`: the score by which recipes are chosen, of trainings that are small but real."""

import json
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from scripts import load_script
from typer.testing import CliRunner

from enet_tvm.data.source import LabelledStreet
from enet_tvm.size import Size

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "held_out_rides.py"
TINY = 'epochs = 1\nbatch_size = 7\ncrop = "32x32"\nprecision = "float32"\n'


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


@pytest.fixture
def data(tmp_path):
    """34 frames of the ride at dusk, of which the last 31 are fold B, and 2 of each other ride."""
    root = tmp_path / "camvid"
    frames = [f"0001TP_{i:03}" for i in range(34)] + [f"{ride}_{i:03}" for ride in ("0006R0", "0016E5") for i in range(2)]
    streets = LabelledStreet(Size(48, 32), 4, 1)
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(frames):
        picture, labels = streets[number % 4]
        picture.save(root / "train" / f"{name}.png")
        Image.fromarray(labels).save(root / "trainannot" / f"{name}.png")
    (root / "train.txt").write_text("".join(f"train/{name}.png trainannot/{name}.png\n" for name in frames))
    return root


@pytest.mark.slow
def test_both_folds_are_trained_judged_and_remembered(script, data, tmp_path):
    recipe, out = tmp_path / "tiny.toml", tmp_path / "out"
    recipe.write_text(TINY)
    app = typer.Typer()
    app.command()(script.main)
    threads = torch.get_num_threads()
    command = ["--data", str(data), "--recipe", str(recipe), "--set", "rare.paste=1.0", "--seeds", "1", "--out", str(out)]
    try:
        first, again = (CliRunner().invoke(app, [*command, "--threads", "1"], catch_exceptions=False) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    # Fold A trains on all but the two frames of 0006R0, fold B on all but 31.
    assert "36 pictures to train on, 2 to check with" in first.output
    assert "7 pictures to train on, 31 to check with" in first.output
    assert again.output.count("resumed after epoch 1") == 2
    results = json.loads((out / "held_out_rides.json").read_text())
    assert [(result["recipe"], result["fold"], result["seed"]) for result in results] == [
        ("tiny rare.paste=1.0", "A", 0),
        ("tiny rare.paste=1.0", "B", 0),
    ]
    a, b = (result["miou"] for result in results)
    table = (out / "held_out_rides.md").read_text()
    assert f"| tiny rare.paste=1.0 | {a:.3f} | {b:.3f} | {0.73 * a + 0.27 * b:.3f} |" in table
    assert table.count("| tiny rare.paste=1.0 | ") == 3


def test_recipes_are_ranked_by_their_mean_score(script):
    results = [
        {"recipe": name, "fold": fold, "seed": seed, "miou": value, "classes": {"sky": {"iou": value}, "pole": {"iou": None}}}
        for name, values in (("worse", (0.4, 0.5)), ("better", (0.5, 0.7)))
        for seed, value in enumerate(values)
        for fold in script.FOLDS
    ]
    lines = script.table(results).splitlines()
    assert lines[2] == "| better | 0.600 | 0.600 | 0.600 | 0.500 to 0.700 | 2 |"
    assert lines[3] == "| worse | 0.450 | 0.450 | 0.450 | 0.400 to 0.500 | 2 |"
    assert lines[-1] == "| worse | B | 0.450 |  |"


def test_a_score_needs_both_folds_of_a_seed(script):
    results = [
        {"fold": "A", "seed": 0, "miou": 0.5},
        {"fold": "B", "seed": 0, "miou": 0.3},
        {"fold": "A", "seed": 1, "miou": 0.6},
    ]
    assert script.scores(results) == pytest.approx([0.73 * 0.5 + 0.27 * 0.3])
    assert script.scores(results[2:]) == []
