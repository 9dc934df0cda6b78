"""The trainer: it learns, and it goes on after a kill as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.networks import load_network, read_info
from enet_tvm.size import Size
from enet_tvm.training.evaluate import evaluate, torch_forward
from enet_tvm.training.recipe import Recipe
from enet_tvm.training.trainer import Trainer

TINY = {"epochs": 3, "batch_size": 4, "crop": "64x48", "evaluate_every": 2, "optimiser": {"warmup_epochs": 0.5}}
SIZE = Size(96, 64)


def trainer(directory, recipe=None, **options):
    return Trainer(
        Recipe.model_validate(recipe or TINY), LabelledStreet(SIZE, 8, 1), LabelledStreet(SIZE, 2, 2), directory, **options
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    trainer(directory).run()
    return directory


class Interrupter:
    """Stops a training in the middle of an epoch."""

    def __init__(self, at_step):
        self.at_step = at_step

    def started(self, plan):
        self.plan = plan

    def stepped(self, step):
        if step.done == self.at_step:
            raise KeyboardInterrupt

    def epoch_done(self, row):
        pass


def same_weights(one, other):
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_what_is_written(uninterrupted):
    assert {path.name for path in uninterrupted.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "checkpoint.pt",
        "log.csv",
        "recipe.json",
    }
    log = (uninterrupted / "log.csv").read_text().splitlines()
    assert len(log) == 4
    assert log[0].startswith("epoch,loss,learning_rate,seconds,val_miou")
    assert Recipe.model_validate(json.loads((uninterrupted / "recipe.json").read_text())) == Recipe.model_validate(TINY)


def test_the_weights_measure_what_their_notes_say(uninterrupted):
    info = read_info(uninterrupted / "last.safetensors")
    samples = LabelledStreet(SIZE, 2, 2)
    network = load_network(uninterrupted / "last.safetensors")
    metrics = evaluate(torch_forward(network), samples, samples.class_set, info.mean, info.std)
    assert info.notes["epoch"] == 3
    assert metrics.miou == pytest.approx(info.notes["val"]["miou"], abs=1e-6)


@pytest.mark.parametrize("at_step", [1, 3, 4])
def test_an_interrupted_training_ends_with_the_same_weights(uninterrupted, tmp_path, at_step):
    first = trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run(Interrupter(at_step))
    assert first.saved_epochs == (at_step - 1) // 2
    second = trainer(tmp_path)
    assert second.epoch == first.saved_epochs
    second.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted / "last.safetensors")


def test_kill_minus_nine(uninterrupted, tmp_path):
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        torch.set_num_threads({torch.get_num_threads()})
        from test_trainer import Interrupter, trainer
        class Killer(Interrupter):
            def stepped(self, step):
                if step.done == self.at_step:
                    os.kill(os.getpid(), signal.SIGKILL)
        trainer({str(tmp_path)!r}).run(Killer(5))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=os.environ, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = trainer(tmp_path)
    assert again.epoch == 2
    again.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted / "last.safetensors")
    rows = [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert rows == ["1", "2", "3"]


def test_another_recipe_is_refused_unless_fresh(uninterrupted):
    other = TINY | {"epochs": 4}
    with pytest.raises(UserError, match=r"another recipe.*--fresh"):
        trainer(uninterrupted, other)
    assert trainer(uninterrupted, other, fresh=True).epoch == 0


def test_a_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="--fresh"):
        trainer(tmp_path)


def test_a_loss_that_diverges_ends_with_a_sentence_and_keeps_the_checkpoint(tmp_path):
    started = trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        started.run(Interrupter(3))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    again = trainer(tmp_path)
    with torch.no_grad():
        again.network.fullconv.bias[0] = float("nan")
    with pytest.raises(UserError, match=r"no longer finite in epoch 2 .*epoch 1 is intact"):
        again.run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_it_learns(tmp_path):
    recipe = {
        "epochs": 8,
        "batch_size": 4,
        "crop": "64x48",
        "evaluate_every": 8,
        "average_decay": 0.5,
        "dropout": 0.0,
        "optimiser": {"learning_rate": 0.01, "warmup_epochs": 0},
        "loss": {"class_weight_constant": 0},
        "augmentation": {"scale": [1.0, 1.0], "aspect": 0.0, "brightness": 0.0, "contrast": 0.0, "hue": 0.0, "blur": 0.0},
    }
    run = trainer(tmp_path, recipe)
    best = run.run()
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < 0.8 * losses[0]
    assert best["val_global_accuracy"] > 0.3


def test_bfloat16_keeps_float32_weights(tmp_path):
    recipe = TINY | {"epochs": 1, "precision": "bfloat16", "loss": {"lovasz": 1.0}}
    trainer(tmp_path, recipe).run()
    assert {tensor.dtype for tensor in load_file(tmp_path / "last.safetensors").values()} == {torch.float32, torch.int64}


def test_a_val_split_without_labels_is_refused(tmp_path):
    train = LabelledStreet(SIZE, 4, 1)
    empty = [(picture, labels * 0 + 11) for picture, labels in train]
    with pytest.raises(UserError, match="val split has no labelled pixel"):
        Trainer(Recipe.model_validate(TINY), train, empty, tmp_path)


def test_segnet_takes_a_step(tmp_path):
    started = trainer(tmp_path, TINY | {"crop": "32x32", "batch_size": 2}, network="segnet")
    before = {key: value.clone() for key, value in started.network.state_dict().items() if key.startswith("classifier")}
    pictures, labels = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    assert started._step(pictures, labels, 1e-3) > 0
    assert all(not torch.equal(value, started.network.state_dict()[key]) for key, value in before.items())


def test_another_network_is_not_resumed_nor_made_up(uninterrupted, tmp_path):
    with pytest.raises(UserError, match="is a training of enet"):
        trainer(uninterrupted, network="segnet")
    with pytest.raises(UserError, match="no network 'unet'"):
        trainer(tmp_path, network="unet")
