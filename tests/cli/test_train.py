"""`enet-tvm train` and `enet-tvm evaluate` on a tiny data set in CamVid's layout."""

import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from enet_tvm.cli import evaluate, fit_bias, train
from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ERFNet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.size import Size


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, count, seed in (("train", 4, 1), ("val", 2, 2)):
        (root / split).mkdir()
        (root / f"{split}annot").mkdir()
        for i, (picture, labels) in enumerate(LabelledStreet(Size(96, 64), count, seed)):
            picture.save(root / split / f"{i}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{i}.png")
        (root / f"{split}.txt").write_text("".join(f"{split}/{i}.png {split}annot/{i}.png\n" for i in range(count)))
    return root


@pytest.mark.slow
def test_a_recipe_answers_to_the_name_that_it_had(data, tmp_path):
    arguments = ("--data", data, "--out", tmp_path / "run", "--size", "64x48", "--set", "drawn_streets=0", "--epochs", 1)
    assert "'mixed' is called 'small-objects' now" in run(train.command, *arguments, "--recipe", "mixed").output
    assert "resumed after epoch 1" in run(train.command, *arguments, "--recipe", "small-objects").output


@pytest.mark.slow
def test_train_then_evaluate(data, tmp_path):
    out = tmp_path / "run"
    arguments = ("--data", data, "--out", out, "--epochs", 2, "--size", "64x48", "--json", tmp_path / "train.json")
    result = run(train.command, *arguments)
    assert result.exit_code == 0
    assert "4 pictures to train on" in result.output
    assert "2 epochs of 1 steps" in result.output
    trained = json.loads((tmp_path / "train.json").read_text())
    assert trained["epochs"] == trained["best"]["epoch"] == 2
    assert trained["recipe"]["crop"] == "64x48"

    again = run(train.command, *arguments)
    assert again.exit_code == 0
    assert "resumed after epoch 2" in again.output
    with pytest.raises(UserError, match="another recipe"):
        run(train.command, "--data", data, "--out", out, "--epochs", 3)

    arguments = ("--data", data, "--weights", trained["weights"], "--json", tmp_path / "evaluate.json")
    result = run(evaluate.command, *arguments, "--report", tmp_path / "report")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("bicyclist", "mean", "global"))
    figures = json.loads((tmp_path / "evaluate.json").read_text())
    assert figures["miou"] == pytest.approx(trained["best"]["val_miou"], abs=1e-6)
    assert figures["pictures"] == 2
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html",
        "report.md",
        "confusion.png",
        "sheet.png",
        "pictures.csv",
    }
    report = (tmp_path / "report" / "report.md").read_text()
    assert f"| mean IoU | {100 * figures['miou']:.2f} |" in report
    assert "- split: val" in report


@pytest.mark.slow
def test_erfnet_encoder_first(data, tmp_path):
    """The paper's recipe of two stages, with a network that is not ENet: trained, stored, gone on from, and read back."""
    recipe = ("--recipe", "paper", "--set", "batch_size=2", "--set", "evaluate_every=1", "--epochs", 1, "--size", "64x48")
    arguments = ("--data", data, "--out", tmp_path, "--network", "erfnet", *recipe, "--json", tmp_path / "train.json")
    run(train.command, *arguments)
    trained = json.loads((tmp_path / "train.json").read_text())
    assert [trained["epochs"], trained["best"]["stage"]] == [2, "decoder"]
    assert isinstance(load_network(tmp_path / "best.safetensors"), ERFNet)
    assert read_info(tmp_path / "best.safetensors").network == "erfnet"
    assert "resumed after epoch 2" in run(train.command, *arguments).output
    start = ("--start", tmp_path / "best.safetensors", "--network", "erfnet", "--epochs", 1, "--size", "64x48")
    again = run(train.command, "--data", data, "--out", tmp_path / "again", *start)
    assert "every layer carried over" in again.output
    with pytest.raises(UserError, match=r"best\.safetensors is erfnet with 11 outputs, and enet"):
        run(train.command, "--data", data, "--out", tmp_path / "other", "--start", tmp_path / "best.safetensors")


def test_a_network_that_is_not_known(data, tmp_path):
    with pytest.raises(UserError, match="no network 'unet'; choose one of enet, erfnet, segnet"):
        run(train.command, "--data", data, "--out", tmp_path / "out", "--network", "unet")


@pytest.mark.slow
def test_a_ride_is_held_out_and_judged(data, tmp_path):
    held = ("--data", data, "--hold-out", "1.png", "--json")
    result = run(train.command, *held, tmp_path / "train.json", "--out", tmp_path, "--epochs", 2, "--size", "64x48")
    assert "3 pictures to train on, 1 to check with" in result.output
    assert "held-out mIoU" in result.output
    trained = json.loads((tmp_path / "train.json").read_text())
    assert trained["data"] == {"train": "train without 1.png", "val": "1.png of train"}
    assert read_info(tmp_path / "last.safetensors").notes["data"] == trained["data"]
    weights = ("--weights", tmp_path / "last.safetensors", "--split", "train")
    run(evaluate.command, *held, tmp_path / "evaluate.json", *weights)
    figures = json.loads((tmp_path / "evaluate.json").read_text())
    assert figures["miou"] == pytest.approx(trained["last"]["val_miou"], abs=1e-6)
    assert (figures["pictures"], figures["split"]) == (1, "1.png of train")


@pytest.mark.slow
def test_biases_are_fitted_without_what_was_held_out(data, tmp_path):
    run(train.command, "--data", data, "--hold-out", "1.png", "--out", tmp_path, "--epochs", 1, "--size", "64x48")
    fitted = tmp_path / "fitted.safetensors"
    weights = ("--weights", tmp_path / "last.safetensors", "--out", fitted)
    result = run(fit_bias.command, "--data", data, "--hold-out", "1.png", *weights)
    assert "mIoU of pixels of train without 1.png" in result.output
    assert read_info(fitted).notes["logit_bias"]["on"] == "3 pictures of train without 1.png"


@pytest.mark.slow
def test_training_on_everything_keeps_the_last_weights(data, tmp_path):
    everything = ("--data", data, "--split", "train,val", "--out", tmp_path, "--epochs", 2, "--size", "64x48")
    result = run(train.command, *everything, "--json", tmp_path / "train.json")
    assert "6 pictures to train on, none to check with" in result.output
    assert json.loads((tmp_path / "train.json").read_text())["weights"] == str(tmp_path / "last.safetensors")
    assert not (tmp_path / "best.safetensors").exists()
    notes = read_info(tmp_path / "last.safetensors").notes
    assert (notes["epoch"], notes["data"], "val" in notes) == (2, {"train": "train,val"}, False)


def test_weights_of_another_class_count_are_refused(data, tmp_path):
    info = WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5,) * 3, (0.5,) * 3)
    save_network(ENet(2), info, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="2 classes and the data set camvid has 11"):
        run(evaluate.command, "--data", data, "--weights", tmp_path / "two.safetensors")


def test_weights_and_artifact_exclude_each_other(data, tmp_path):
    with pytest.raises(UserError, match="both"):
        run(evaluate.command, "--data", data, "--weights", tmp_path / "w", "--artifact", tmp_path)


def test_ctrl_c_says_how_to_go_on(data, tmp_path, monkeypatch):
    from enet_tvm.training.progress import ConsoleObserver

    def interrupt(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConsoleObserver, "stepped", interrupt)
    result = run(train.command, "--data", data, "--out", tmp_path, "--epochs", 1, "--size", "64x48")
    assert result.exit_code == 130
    assert "run the same command again" in result.output


def test_an_output_that_cannot_be_written_is_refused_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(train.command, "--data", data, "--out", tmp_path / "file", "--epochs", 1, "--size", "64x48")


def test_a_device_that_is_not_here_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="no kind of device 'abacus'"):
        run(train.command, "--data", data, "--out", tmp_path, "--device", "abacus")
