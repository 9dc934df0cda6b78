"""From drawn pictures to an evaluation, by commands: everything that takes --data takes a data set of one's own."""

import json

import numpy as np
import pytest
from PIL import Image

from enet_tvm.cli.main import main
from enet_tvm.networks import read_info


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


@pytest.fixture
def data(tmp_path, capsys, monkeypatch):
    """One class and the background, in binary masks."""
    root = tmp_path / "mine"
    assert run(capsys, monkeypatch, "data", "draw", root, "--count", 6, "--classes", 3, "--size", "64x48")[0] == 0
    for path in sorted((root / "masks").iterdir()):
        with Image.open(path) as image:
            mask = np.asarray(image)
        Image.fromarray(np.where(mask == 1, np.uint8(255), np.uint8(0))).save(path)
    code, out, _ = run(capsys, monkeypatch, "data", "new", root, "--classes", "ground,disc")
    assert code == 0
    assert "- they are binary masks: 0 is 'ground' and 255 is 'disc'" in out
    assert out.endswith(f"enet-tvm data check --data {root}\n")
    return root


@pytest.mark.slow
def test_one_class_against_the_background(data, tmp_path, capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "data", "check", "--data", data)
    assert code == 0
    assert out == f"mine in {data}, 5 train, 1 val pairs: no problems\n"
    code, out, _ = run(capsys, monkeypatch, "data", "stats", "--data", data)
    assert code == 0
    assert "disc" in out

    recipe = tmp_path / "r.toml"
    recipe.write_text('epochs = 1\nbatch_size = 2\ncrop = "64x48"\n[loss]\nclass_weights = { disc = 4.0 }\n')
    arguments = ("train", "--data", data, "--recipe", recipe, "--out", tmp_path / "run", "--threads", 1)
    assert run(capsys, monkeypatch, *arguments)[0] == 0
    weights = tmp_path / "run" / "best.safetensors"
    assert read_info(weights).classes == ("ground", "disc")

    for path in sorted((data / "masks").iterdir()):
        Image.new("L", (64, 48)).save(path)
    code, out, _ = run(capsys, monkeypatch, "evaluate", "--data", data, "--weights", weights, "--json", tmp_path / "e.json")
    assert code == 0
    assert "not in this split, and left out of the means: disc" in out
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["absent"] == ["disc"]
    assert figures["miou"] == figures["classes"]["ground"]["iou"]
    assert figures["classes"]["disc"] == {"iou": None, "accuracy": None}

    fitted = tmp_path / "fitted.safetensors"
    code, out, _ = run(capsys, monkeypatch, "fit-bias", "--data", data, "--weights", weights, "-o", fitted)
    assert code == 0
    assert "nan" not in out
    assert read_info(fitted).classes == ("ground", "disc")


def test_weights_of_other_classes_are_refused(data, tmp_path, capsys, monkeypatch):
    code, _, err = run(capsys, monkeypatch, "evaluate", "--data", data)
    assert code == 2
    assert "knows 11 classes and the data set mine has 2" in err


def test_check_and_train_name_what_is_wrong(data, tmp_path, capsys, monkeypatch):
    (data / "masks" / "0001.png").unlink()
    Image.new("L", (8, 8), 3).save(data / "masks" / "0002.png")
    code, _, _ = run(capsys, monkeypatch, "data", "check", "--data", data, "--json", tmp_path / "c.json")
    assert code == 2
    told = json.loads((tmp_path / "c.json").read_text())["problems"]
    assert len(told) == 3
    assert all(any(words in sentence for sentence in told) for words in ("0001.png has no mask", "holds 3", "0002.png are 8x8"))
    code, _, err = run(capsys, monkeypatch, "train", "--data", data, "--out", tmp_path / "run")
    assert code == 2
    assert "more like it" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("data", "new", "nowhere"), "there is no directory nowhere"),
        (("data", "new", ".", "--outside", "sky"), "--outside is 'sky'"),
        (("data", "new", ".", "--size", "1x1"), "does not fit"),
        (("data", "draw", "d", "--classes", "99"), "99 classes of shapes cannot be drawn"),
        (("data", "draw", "d", "--size", "many"), "is not a size"),
    ],
)
def test_bad_input(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
