"""Model cards say what the weights' file says, and the shipped card is the shipped file's."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from enet_tvm.cli.main import build_app
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.training.card import BEGIN, END, describe, table_cell, write_card
from enet_tvm.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
CARD = ROOT / "model/enet-camvid.md"
VAL = {
    "miou": 0.625,
    "class_average": 0.75,
    "global_accuracy": 0.8751,
    "pixels": 12345,
    "classes": {"left": {"iou": 0.5, "accuracy": 0.25}, "ri|ght": {"iou": 0.75, "accuracy": None}},
}
INFO = WeightsInfo(
    "enet", ("left", "ri|ght"), ((0, 0, 0), (1, 1, 1)), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2),
    {"recipe": load_recipe("warm-restart").model_dump(mode="json"), "epoch": 7, "val": VAL},
)  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "two.safetensors"
    save_network(ENet(2), INFO, path)
    return path


def with_notes(weights: Path, **notes: object) -> Path:
    save_network(load_network(weights), replace(INFO, notes=notes), weights)
    return weights


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cell."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_the_shipped_card_is_of_the_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where this fails, `enet-tvm info --card model/enet-camvid.md` mends it; then read what people wrote around it."""
    monkeypatch.chdir(ROOT)
    copy = tmp_path / "card.md"
    copy.write_text(CARD.read_text())
    write_card(copy, Path(DEFAULT_WEIGHTS))
    assert copy.read_text() == CARD.read_text()
    means = [f"**{100 * figures['miou']:.2f}**" for figures in read_info().notes["held_out"]["figures"].values()]
    assert rows(CARD.read_text().partition(END)[0])["**mean**"] == means


def test_what_is_said_of_weights(weights: Path):
    table = rows(describe(weights))
    parameters = sum(parameter.numel() for parameter in ENet(2).parameters())
    assert table["network"] == [f"`enet`, {parameters:,} parameters, {weights.stat().st_size / 1e6:.1f} MB"]
    assert table["classes"] == ["2: left, ri\\|ght"]
    assert table["recipe"] == ["`warm-restart`: 78 epochs of windows of 384x288"]
    assert table["weights"] == ["those after epoch 7"]
    assert table["left"] == ["50.00", "25.00"]
    assert table["ri\\|ght"] == ["75.00", ""]
    assert table["**mean**"] == ["**62.50**", "**75.00**"]
    assert table["**global**"] == ["", "**87.51**"]
    assert "12,345 labelled pixels" in describe(weights)


def test_a_recipe_of_its_own_biases_and_other_notes(weights: Path):
    recipe = load_recipe("small-objects", ["batch_size=4"]).model_dump(mode="json")
    fitted = {"on": "5 pictures of the train split", "bias": [0.0, -0.25]}
    text = describe(with_notes(weights, recipe=recipe, epochs_averaged=[2, 3], logit_bias=fitted, imported_from="elsewhere"))
    table = rows(text)
    assert table["recipe"] == ["of its own: 46 epochs of windows of 384x288, 48 drawn streets among the pictures"]
    assert table["weights"] == ["mean of those after the epochs 2, 3"]
    assert table["`fit-bias`"] == ["on 5 pictures of the train split: ri\\|ght -0.25"]
    assert table["imported from"] == ["elsewhere"]
    assert "holds no figures" in text
    assert "IoU" not in text


def test_figures_of_held_out_rides(weights: Path):
    rides = "0006R0, 0001TP:-31 of train"
    text = describe(with_notes(weights, data={"train": "train without 0006R0, 0001TP:-31", "val": rides}, val=VAL))
    assert rows(text)["trained on"] == ["train without 0006R0, 0001TP:-31"]
    assert f"On {rides}, 12,345 labelled pixels" in text
    assert f"--split train --hold-out 0006R0 --hold-out 0001TP:-31 --weights {weights}`" in text


@pytest.mark.slow
def test_figures_of_other_weights_of_the_recipe(weights: Path):
    other = {**VAL, "pixels": 7, "miou": 0.25, "classes": {**VAL["classes"], "left": {"iou": 0.125, "accuracy": 0.5}}}
    figures = {"0006R0 of train": VAL, "0001TP:-31 of train,val": other}
    text = describe(with_notes(weights, held_out={"weights": "twin.safetensors", "figures": figures}, val=VAL, epoch=3))
    table = rows(text)
    assert table["class"] == ["0006R0 of train, 12,345 pixels", "0001TP:-31 of train,val, 7 pixels"]
    assert table["left"] == ["50.00", "12.50"]
    assert table["**mean**"] == ["**62.50**", "**25.00**"]
    assert "--split train,val --hold-out 0001TP:-31 --weights twin.safetensors`" in text
    assert "holds no figures" not in text
    assert "held_out" not in table


def test_a_new_card_and_one_that_people_wrote_in(weights: Path, tmp_path: Path):
    card = tmp_path / "cards/two.md"
    result = CliRunner().invoke(build_app(), ["info", "--card", str(card), "--weights", str(weights)])
    assert (result.exit_code, result.exception) == (0, None)
    assert card.read_text() == f"# two.safetensors\n\n{BEGIN}\n{describe(weights)}\n{END}\n"
    card.write_text(f"Mine, \\1.\n{BEGIN}\nold\n{END}\nMine too.\n")
    write_card(card, weights)
    assert card.read_text() == f"Mine, \\1.\n{BEGIN}\n{describe(weights)}\n{END}\nMine too.\n"


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("text", ["no part", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", 2 * f"{BEGIN}\n{END}\n", "\udcff"])
def test_a_card_without_one_part_stays_as_it_is(text: str, weights: Path, tmp_path: Path):
    (card := tmp_path / "card.md").write_bytes(before := os.fsencode(text))
    with pytest.raises(UserError, match=re.escape(str(card))):
        write_card(card, weights)
    assert card.read_bytes() == before


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "notes",
    [
        {"val": {"miou": 0.5}},
        {"recipe": 7},
        {"held_out": {"weights": "x", "figures": {}}},
        {"logit_bias": {"on": "", "bias": [1.0]}},
    ],
)
def test_notes_of_others_are_a_sentence(notes: dict, weights: Path, tmp_path: Path):
    with pytest.raises(UserError, match="its notes are not as 'enet-tvm train' writes them"):
        write_card(tmp_path / "card.md", with_notes(weights, **notes))
    assert not (tmp_path / "card.md").exists()


@pytest.mark.parametrize("other", [["--compiled", "x"], ["--network", "enet"], ["--classes", "3"], ["--json", "x"]])
def test_a_card_and_something_else(other: list[str], tmp_path: Path):
    result = CliRunner().invoke(build_app(), ["info", "--card", str(tmp_path / "card.md"), *other])
    assert isinstance(result.exception, UserError)
    assert "leave all but --weights out" in str(result.exception)
    assert not (tmp_path / "card.md").exists()


@given(st.text())
def test_no_text_leaves_its_cell(text: str):
    assert re.fullmatch(r"([^|\n\r<]|\\\|)*", table_cell(text))
