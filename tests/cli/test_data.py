"""`enet-tvm data`, and `enet-tvm evaluate` on what only Cityscapes and SUN RGB-D have."""

import json

import numpy as np
import pytest
from PIL import Image
from videos import read_video

from enet_tvm.cli.main import main
from enet_tvm.data.classes import CITYSCAPES, SUNRGBD
from enet_tvm.networks import ENet, WeightsInfo, save_network


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def cityscapes(root, instances=True):
    """Write a train and a val picture: road below, a car and a person on it."""
    ids = np.full((32, 64), 7, np.uint8)
    ids[:8], ids[10:20, 4:20], ids[10:20, 40:44] = 23, 26, 24
    for split in ("train", "val"):
        for folder, ending, pixels in (
            ("leftImg8bit", "leftImg8bit", np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)),
            ("gtFine", "gtFine_labelIds", ids),
            ("gtFine", "gtFine_instanceIds", np.where(ids > 23, ids.astype(np.uint16) * 1000, ids).astype(np.uint16)),
        ):
            if instances or ending != "gtFine_instanceIds":
                path = root / folder / split / "ulm" / f"ulm_000000_000019_{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def weights(path, class_set):
    info = WeightsInfo("enet", class_set.names, class_set.palette, (0.5,) * 3, (0.5,) * 3)
    save_network(ENet(len(class_set)), info, path)
    return path


def test_stats(tmp_path, capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "data", "stats", "--data", cityscapes(tmp_path), "--json", tmp_path / "s.json")
    assert code == 0
    assert all(words in out for words in ("road", "bicycle", "50.498", "64x32 (1)", "standard deviation"))
    figures = json.loads((tmp_path / "s.json").read_text())
    assert figures["dataset"] == "cityscapes"
    assert figures["pictures"] == 1
    assert figures["classes"]["car"]["pixels"] == 160
    assert figures["classes"]["car"]["weight"] == pytest.approx(1 / np.log(1.02 + 160 / 2048))


def test_check_passes(tmp_path, capsys, monkeypatch):
    code, out, err = run(capsys, monkeypatch, "data", "check", "--data", cityscapes(tmp_path))
    assert code == 0
    assert out == f"cityscapes in {tmp_path}, 1 train, 1 val pairs: no problems\n"
    assert err == ""


def test_check_shows_twenty_problems_and_writes_all(tmp_path, capsys, monkeypatch):
    cityscapes(tmp_path)
    for i in range(25):
        (tmp_path / "gtFine" / "val" / "ulm" / f"ulm_{i:06d}_000020_gtFine_labelIds.png").touch()
    arguments = ("data", "check", "--data", tmp_path, "--dataset", "cityscapes", "--json", tmp_path / "c.json")
    code, out, _ = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert out.count("- ") == 20
    assert "and 5 more" in out
    assert "25 problems" in out
    assert len(json.loads((tmp_path / "c.json").read_text())["problems"]) == 25


@pytest.mark.parametrize("verb", ["stats", "check"])
def test_what_is_no_data_set_is_one_sentence(verb, tmp_path, capsys, monkeypatch):
    for where in (tmp_path, tmp_path / "nowhere"):
        code, out, err = run(capsys, monkeypatch, "data", verb, "--data", where)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_without_arguments_there_is_help_and_no_empty_error(arguments, capsys, monkeypatch):
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "data" in out
    assert err == ""


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("instances", [True, False])
def test_evaluation_on_cityscapes(instances, tmp_path, capsys, monkeypatch):
    cityscapes(tmp_path, instances)
    arguments = (
        "evaluate",
        "--data",
        tmp_path,
        "--weights",
        weights(tmp_path / "w.safetensors", CITYSCAPES),
        "--size",
        "64x32",
    )
    code, out, _ = run(capsys, monkeypatch, *arguments, "--json", tmp_path / "e.json")
    assert code == 0
    assert "category" in out
    assert "vehicle" in out
    figures = json.loads((tmp_path / "e.json").read_text())
    assert set(figures["categories"]) == set(CITYSCAPES.categories)
    assert figures["category_miou"] is not None
    assert ("iIoU" in out) == ("class_iiou" in figures) == ("iiou" in figures["classes"]["car"]) == instances
    if instances:
        assert figures["instances"] == 2
        assert figures["classes"]["road"]["iiou"] is None
        assert 0 <= figures["classes"]["car"]["iiou"] <= 1


def test_evaluation_on_sun_rgbd_is_at_the_papers_size(tmp_path, capsys, monkeypatch):
    for folder, pixels in (
        ("SUNRGBD-test_images", np.full((53, 73, 3), 90, np.uint8)),
        ("sunrgbd_train_test_labels", np.full((53, 73), 2, np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "img-000001.png")
    arguments = ("evaluate", "--data", tmp_path, "--split", "test", "--weights", weights(tmp_path / "w.safetensors", SUNRGBD))
    code, out, _ = run(capsys, monkeypatch, *arguments, "--json", tmp_path / "e.json")
    assert code == 0
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["size"] == "256x200"
    assert figures["pixels"] == 53 * 73
    assert {"global_accuracy", "class_average", "miou"} <= set(figures)
    assert "categories" not in figures
    assert "category" not in out


def test_training_checks_the_data_set_first(tmp_path, capsys, monkeypatch):
    cityscapes(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png")
    (tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000000_000019_leftImg8bit.png").write_text("no picture")
    code, _, err = run(capsys, monkeypatch, "train", "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 2
    assert "is not a picture of a known format" in err
    assert "more like it: 'enet-tvm data check" in err
    assert not (tmp_path / "run").exists()


def test_ride(capsys, monkeypatch, tmp_path):
    code, stdout, _ = run(
        capsys, monkeypatch, "data", "ride", tmp_path / "ride.mp4", "--seconds", "0.5", "--size", "96x64", "--rate", "10"
    )
    assert (code, stdout) == (0, f"{tmp_path / 'ride.mp4'}: 5 frames\n")
    assert len(read_video(tmp_path / "ride.mp4")[0]) == 5
    for arguments, sentence in [
        (["ride", tmp_path / "ride.avi"], "is no video that can be written"),
        (["ride", tmp_path / "ride.mkv", "--size", "95x64"], "size 95x64 does not fit"),
    ]:
        code, _, stderr = run(capsys, monkeypatch, "data", *arguments)
        assert code == 2
        assert sentence in stderr
