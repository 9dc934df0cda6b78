"""The trainer: it learns, and it goes on after a kill as if nothing had happened."""

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import evaluate, torch_forward
from enet_tvm.files import hashed_name
from enet_tvm.networks import ENet, ENetVariant, WeightsInfo, load_network, read_info, save_network
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size
from enet_tvm.training import trainer as training
from enet_tvm.training.checkpoint import load_checkpoint, save_checkpoint
from enet_tvm.training.recipe import Recipe, load_recipe
from enet_tvm.training.trainer import Trainer

PLAIN = {"precision": "float32", "loss": {"lovasz": 0}}
TINY = PLAIN | {"epochs": 3, "batch_size": 4, "crop": "64x48", "evaluate_every": 2, "optimiser": {"warmup_epochs": 0.5}}
STAGED = PLAIN | {
    "batch_size": 4,
    "crop": "64x48",
    "epochs": 2,
    "evaluate_every": 2,
    "optimiser": {"schedule": "constant", "warmup_epochs": 0, "learning_rate": 1e-3},
    "stages": [
        {"name": "first", "part": "encoder"},
        {"name": "second", "part": "network", "optimiser": {"learning_rate": 2e-4}},
    ],
}
SIZE = Size(96, 64)


def trainer(directory, recipe=None, **options):
    return Trainer(
        Recipe.model_validate(recipe or TINY), LabelledStreet(SIZE, 8, 1), LabelledStreet(SIZE, 2, 2), directory, **options
    )


@pytest.fixture(autouse=True)
def without_curves(monkeypatch):
    """Their drawing is a fifth of what a training this small takes; `uninterrupted`, which is made before, has them."""
    monkeypatch.setattr(training, "draw_curves", lambda history, path: None)


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
        "curves.png",
        "log.csv",
        "recipe.json",
    }
    log = (uninterrupted / "log.csv").read_text().splitlines()
    assert len(log) == 4
    assert log[0].startswith("epoch,stage,loss,learning_rate,seconds,val_miou")
    assert Image.open(uninterrupted / "curves.png").width > 1000
    assert Recipe.model_validate(json.loads((uninterrupted / "recipe.json").read_text())) == Recipe.model_validate(TINY)


@pytest.mark.slow
@pytest.mark.parametrize(("pause", "drawn"), [(1e9, [3]), (0.0, [1, 2, 3])])
def test_curves_are_drawn_now_and_then_and_at_the_end(tmp_path, monkeypatch, pause, drawn):
    lengths = []
    monkeypatch.setattr(training, "CURVES_SECONDS", pause)
    monkeypatch.setattr(training, "draw_curves", lambda history, path: lengths.append(len(history)))
    trainer(tmp_path, TINY | {"evaluate_every": 3}).run()
    assert lengths == drawn


def test_the_weights_measure_what_their_notes_say(uninterrupted):
    info = read_info(uninterrupted / "last.safetensors")
    samples = LabelledStreet(SIZE, 2, 2)
    network = load_network(uninterrupted / "last.safetensors")
    metrics = evaluate(torch_forward(network), samples, samples.class_set, info.mean, info.std)
    assert info.notes["epoch"] == 3
    assert metrics.miou == pytest.approx(info.notes["val"]["miou"], abs=1e-6)


@pytest.mark.slow
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


TRAINING = f"""
import json, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
import torch._dynamo  # which optimisers import
from test_trainer import STAGED, Interrupter, trainer
class Killer(Interrupter):
    def stepped(self, step):
        if step.done == self.at_step:
            os.kill(os.getpid(), signal.SIGKILL)
for line in sys.stdin:
    step, directory, staged, threads = json.loads(line)
    if not (child := os.fork()):
        torch.set_num_threads(threads)
        trainer(directory, STAGED if staged else None).run(Killer(step))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Trains in forks, each of which is killed after a step: as if in new processes, but PyTorch is imported once."""


@pytest.fixture(scope="module")
def kill_at():
    """Makes ``kill_at(step, directory)`` train in another process, which is killed after a step."""
    command, pipe = [sys.executable, "-c", TRAINING], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

        def kill(step, directory, staged=False):
            process.stdin.write(json.dumps([step, str(directory), staged, torch.get_num_threads()]) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{-signal.SIGKILL}\n"

        yield kill
        process.stdin.close()


@pytest.mark.slow
def test_kill_minus_nine(uninterrupted, kill_at, tmp_path):
    kill_at(5, tmp_path)
    again = trainer(tmp_path)
    assert again.epoch == 2
    again.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted / "last.safetensors")
    rows = [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert rows == ["1", "2", "3"]


@pytest.fixture(scope="module")
def uninterrupted_stages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stages")
    run = trainer(directory, STAGED)
    run.run()
    return directory, run


@pytest.mark.slow
def test_stages_follow_each_other(uninterrupted_stages):
    directory, run = uninterrupted_stages
    assert [(row["epoch"], row["stage"]) for row in run.history] == [(1, "first"), (2, "first"), (3, "second"), (4, "second")]
    assert [row["val_miou"] is None for row in run.history] == [True, False, True, False]
    assert run.best["epoch"] == 4
    assert read_info(directory / "best.safetensors").notes["epoch"] == 4
    assert [round(row["learning_rate"], 9) for row in run.history] == [1e-3, 1e-3, 2e-4, 2e-4]


def test_the_first_stage_trains_the_encoder_only(tmp_path):
    run = trainer(tmp_path, STAGED)
    before = {key: value.clone() for key, value in run.whole.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        run.run(Interrupter(4))
    after = run.whole.state_dict()
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {name for name, _ in run.whole.named_children()} - set(NETWORKS["enet"].encoder.decoder_layers)


@pytest.mark.slow
def test_the_second_stage_starts_from_the_first_ones_averaged_encoder(uninterrupted_stages, tmp_path):
    class Watcher(Interrupter):
        def stepped(self, step):
            if step.done == 4:
                self.averaged = {key: value.clone() for key, value in run.average.network.state_dict().items()}

        def epoch_done(self, row):
            if row["epoch"] == 2:
                run.begin_stage = self.begin

        def begin(self, number):
            self.handed_over = {key: value.clone() for key, value in run.whole.state_dict().items()}
            raise KeyboardInterrupt

    run, watcher = trainer(tmp_path, STAGED), Watcher(-1)
    with pytest.raises(KeyboardInterrupt):
        run.run(watcher)
    assert all(torch.equal(value, watcher.averaged[f"network.{key}"]) for key, value in watcher.handed_over.items())


@pytest.mark.slow
@pytest.mark.parametrize(("at_step", "epochs_done"), [(3, 1), (5, 2), (7, 3)])
def test_kill_minus_nine_in_either_stage(uninterrupted_stages, kill_at, tmp_path, at_step, epochs_done):
    kill_at(at_step, tmp_path, staged=True)
    again = trainer(tmp_path, STAGED)
    assert again.epoch == epochs_done
    again.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted_stages[0] / "last.safetensors")
    assert [row["stage"] for row in again.history] == ["first", "first", "second", "second"]


@pytest.mark.slow
def test_segnet_is_not_trained_encoder_first(tmp_path):
    with pytest.raises(UserError, match="SegNet cannot be trained encoder first"):
        trainer(tmp_path, STAGED, network="segnet")


@pytest.mark.slow
def test_a_checkpoint_of_before_there_were_stages_goes_on(uninterrupted, tmp_path):
    first = trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run(Interrupter(5))
    old = load_checkpoint(tmp_path / "checkpoint.pt")
    recipe = json.loads(old.recipe)
    for place, key in ((recipe, "stages"), (recipe["optimiser"], "decay"), (recipe["loss"], "label_smoothing")):
        del place[key]
    old.recipe = json.dumps(recipe, sort_keys=True)
    for row in old.history:
        del row["stage"]
    old.pictures = old.histogram = None
    save_checkpoint(old, tmp_path / "checkpoint.pt")
    again = trainer(tmp_path)
    assert again.epoch == 2
    again.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted / "last.safetensors")


@pytest.mark.slow
def test_a_full_disk_ends_with_a_sentence_and_keeps_the_checkpoint(uninterrupted, tmp_path):
    class Filler(Interrupter):
        def epoch_done(self, row):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    filled = trainer(tmp_path)
    try:
        with pytest.raises(UserError, match=r"cannot write .*free some room"):
            filled.run(Filler(-1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert filled.saved_epochs == 1
    again = trainer(tmp_path)
    assert again.epoch == 1
    again.run()
    assert same_weights(tmp_path / "last.safetensors", uninterrupted / "last.safetensors")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def camvid_tree(root):
    for split, count, seed in (("train", 8, 1), ("val", 2, 2)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i, (picture, labels) in enumerate(LabelledStreet(SIZE, count, seed)):
            picture.save(root / split / f"{i}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{i}.png")
        (root / f"{split}.txt").write_text("".join(f"{split}/{i}.png {split}annot/{i}.png\n" for i in range(count)))


def test_a_data_set_that_vanishes_while_it_is_read_ends_with_a_sentence(tmp_path):
    camvid_tree(tmp_path / "data")
    train, val = (CamVid(tmp_path / "data", split) for split in ("train", "val"))
    (tmp_path / "data" / "trainannot" / "5.png").unlink()
    with pytest.raises(UserError, match=r"there is no file .*5\.png"):
        Trainer(Recipe.model_validate(TINY), train, val, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_data_set_that_vanishes_later_is_not_missed(uninterrupted, tmp_path):
    camvid_tree(tmp_path / "data")

    class Remover(Interrupter):
        def stepped(self, step):
            shutil.rmtree(tmp_path / "data", ignore_errors=True)

    train, val = (CamVid(tmp_path / "data", split) for split in ("train", "val"))
    Trainer(Recipe.model_validate(TINY), train, val, tmp_path / "run").run(Remover(-1))
    assert not (tmp_path / "data").exists()
    assert same_weights(tmp_path / "run" / "last.safetensors", uninterrupted / "last.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "long", "default", "streets"])
def test_every_stage_of_a_built_in_recipe_takes_a_step(tmp_path, name):
    recipe = load_recipe(name, epochs=1, crop="64x48", batch_size=4)
    run = Trainer(recipe, LabelledStreet(SIZE, 4, 1), LabelledStreet(SIZE, 1, 2), tmp_path)
    run.run()
    assert run.epoch == len(recipe.in_order())
    assert all(math.isfinite(row["loss"]) for row in run.history)


@pytest.mark.slow
def test_decay_of_everything_or_of_kernels_only(tmp_path):
    for decay, reached in (("kernels", False), ("all", True)):
        run = trainer(tmp_path, TINY | {"optimiser": {"decay": decay, "weight_decay": 0.1}})
        decayed = [p for group in run.optimiser.param_groups if group["weight_decay"] for p in group["params"]]
        assert any(p is run.network.initial.act.weight for p in decayed) == reached
        assert any(p is run.network.fullconv.weight for p in decayed)


@pytest.mark.slow
def test_another_recipe_is_refused_unless_fresh(uninterrupted):
    other = TINY | {"epochs": 4}
    with pytest.raises(UserError, match=r"another recipe \(epochs was 3 and is 4\).*--fresh"):
        trainer(uninterrupted, other)
    assert trainer(uninterrupted, other, fresh=True).epoch == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (LabelledStreet(SIZE, 7, 1), "it was trained on 8 pictures, now there are 7"),
        (LabelledStreet(SIZE, 8, 5), "it was trained on 8 with other labels"),
    ],
)
def test_other_pictures_are_refused_unless_fresh(uninterrupted, train, sentence):
    recipe, val = Recipe.model_validate(TINY), LabelledStreet(SIZE, 2, 2)
    with pytest.raises(UserError, match=rf"the data set has changed .*{sentence}.*--fresh"):
        Trainer(recipe, train, val, uninterrupted)
    assert Trainer(recipe, train, val, uninterrupted, fresh=True).epoch == 0


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


@pytest.mark.slow
def test_it_learns(tmp_path):
    recipe = {
        "epochs": 8,
        "batch_size": 4,
        "crop": "64x48",
        "evaluate_every": 8,
        "average_decay": 0.5,
        "dropout": 0.0,
        "optimiser": {"learning_rate": 0.01, "warmup_epochs": 0},
        "loss": {"class_weight_constant": 0, "lovasz": 0},
        "augmentation": {"scale": [1.0, 1.0], "aspect": 0.0, "brightness": 0.0, "contrast": 0.0, "hue": 0.0, "blur": 0.0},
    }
    run = trainer(tmp_path, recipe)
    best = run.run()
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < 0.8 * losses[0]
    assert best["val_global_accuracy"] > 0.3


@pytest.mark.slow
def test_bfloat16_keeps_float32_weights(tmp_path):
    recipe = TINY | {"epochs": 1, "precision": "bfloat16", "loss": {"lovasz": 1.0}}
    trainer(tmp_path, recipe).run()
    assert {tensor.dtype for tensor in load_file(tmp_path / "last.safetensors").values()} == {torch.float32, torch.int64}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_computed_where_the_processor_has_it(tmp_path, monkeypatch, native):
    monkeypatch.setattr("enet_tvm.training.trainer.has_bfloat16", lambda device: native)
    run = trainer(tmp_path, TINY | {"precision": "bfloat16"})
    seen = []
    run.network.initial.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.step(torch.randn(2, 3, 48, 64), torch.zeros(2, 48, 64, dtype=torch.long), 1e-3)
    assert seen == [torch.bfloat16 if native else torch.float32]


@pytest.mark.slow
def test_the_encoders_classifier_is_trained_and_left_out_of_the_weights(uninterrupted, tmp_path):
    recipe = TINY | {"loss": {"encoder": 0.4, "lovasz": 1.0}}
    run = trainer(tmp_path, recipe)
    before = run.network.classifier.weight.clone()
    run.run()
    assert not torch.equal(run.network.classifier.weight, before)
    assert load_file(tmp_path / "last.safetensors").keys() == load_file(uninterrupted / "last.safetensors").keys()
    info, val = read_info(tmp_path / "last.safetensors"), LabelledStreet(SIZE, 2, 2)
    metrics = evaluate(torch_forward(load_network(tmp_path / "last.safetensors")), val, val.class_set, info.mean, info.std)
    assert metrics.miou == pytest.approx(info.notes["val"]["miou"], abs=1e-6)


def test_the_encoders_loss_is_part_of_the_loss(tmp_path):
    pictures, labels = torch.randn(2, 3, 48, 64), torch.zeros(2, 48, 64, dtype=torch.long)
    recipe = TINY | {"dropout": 0.0, "loss": {"encoder": 0.5, "lovasz": 0}}
    run = trainer(tmp_path, recipe)
    with torch.no_grad():
        logits, encoded = run.network.train()(pictures)
    assert encoded.shape == (2, 11, 6, 8)
    weighted = run.loss(logits, labels) + 0.5 * run.loss(encoded, labels[:, ::8, ::8])
    assert run.step(pictures, labels, 1e-3) == pytest.approx(float(weighted), rel=1e-4)


@pytest.mark.slow
def test_segnet_has_no_loss_of_its_encoder(tmp_path):
    with pytest.raises(UserError, match="set the loss's encoder to 0"):
        trainer(tmp_path, TINY | {"loss": {"encoder": 0.5}}, network="segnet")


@pytest.mark.slow
def test_an_interrupted_training_with_everything_ends_with_the_same_weights(tmp_path):
    recipe = TINY | {
        "batch_norm_batches": 2,
        "loss": {"encoder": 0.4, "lovasz": 0},
        "rare": {"windows": 0.5, "paste": 0.5, "class_mix": 0.5},
        "augmentation": {"exposure": [-2.0, 1.0], "noise": 0.05, "gamma": 0.5, "white_balance": 0.2},
    }
    trainer(tmp_path / "whole", recipe).run()
    first = trainer(tmp_path / "parts", recipe)
    with pytest.raises(KeyboardInterrupt):
        first.run(Interrupter(3))
    trainer(tmp_path / "parts", recipe).run()
    assert same_weights(tmp_path / "parts" / "last.safetensors", tmp_path / "whole" / "last.safetensors")


@pytest.mark.slow
def test_batch_norm_statistics_are_taken_anew_for_what_is_kept_only(uninterrupted, tmp_path):
    run = trainer(tmp_path, TINY | {"batch_norm_batches": 2})
    run.run()
    kept, usual = (load_file(directory / "last.safetensors") for directory in (tmp_path, uninterrupted))
    changed = {name.rsplit(".", 1)[1] for name, value in kept.items() if not torch.equal(value, usual[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    averaged = run.average.network.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in usual.items())


def test_a_val_split_without_labels_is_refused(tmp_path):
    train = LabelledStreet(SIZE, 4, 1)
    empty = [(picture, labels * 0 + 11) for picture, labels in train]
    with pytest.raises(UserError, match="val split has no labelled pixel"):
        Trainer(Recipe.model_validate(TINY), train, empty, tmp_path)


@pytest.mark.slow
def test_segnet_takes_a_step(tmp_path):
    started = trainer(tmp_path, TINY | {"crop": "32x32", "batch_size": 2}, network="segnet")
    before = {key: value.clone() for key, value in started.network.state_dict().items() if key.startswith("classifier")}
    pictures, labels = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    assert started.step(pictures, labels, 1e-3) > 0
    assert all(not torch.equal(value, started.network.state_dict()[key]) for key, value in before.items())


@pytest.mark.slow
def test_another_network_is_not_resumed_nor_made_up(uninterrupted, tmp_path):
    with pytest.raises(UserError, match="is a training of enet"):
        trainer(uninterrupted, network="segnet")
    with pytest.raises(UserError, match="no network 'unet'"):
        trainer(tmp_path, network="unet")


@pytest.mark.slow
def test_drawn_streets_are_trained_on_too(uninterrupted, tmp_path):
    with_two = trainer(tmp_path, TINY | {"drawn_streets": 2})
    assert len(with_two.samples) == 10
    assert with_two.samples.histogram.sum() > trainer(uninterrupted).samples.histogram.sum()
    with pytest.raises(UserError, match="another recipe"):
        trainer(uninterrupted, TINY | {"drawn_streets": 2})


def test_training_starts_from_given_weights(uninterrupted, tmp_path):
    weights = uninterrupted / "best.safetensors"
    given = load_network(weights).state_dict()
    started = trainer(tmp_path, start=weights).whole.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in started.items())


def test_weights_of_another_network_are_no_start(uninterrupted, tmp_path):
    with pytest.raises(UserError, match="start from weights of those"):
        trainer(tmp_path, network="segnet", start=uninterrupted / "best.safetensors")


@pytest.mark.slow
def test_a_training_from_a_variant_is_of_that_variant(randomised, tmp_path):
    """In its weights, and when it goes on without the weights that it started from, which the notes still name."""
    variant = ENetVariant(biases=False, initial_pool=3, upsampling_kernel=2)
    info = WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5,) * 3, (0.2,) * 3, variant=variant.to_json())
    save_network(randomised(ENet(2, variant)), info, tmp_path / "w.safetensors")
    started = trainer(tmp_path / "run", start=tmp_path / "w.safetensors")
    assert started.started.anew == ("fullconv",)
    with pytest.raises(KeyboardInterrupt):
        started.run(Interrupter(at_step=6))
    name = hashed_name(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()
    again = trainer(tmp_path / "run")
    assert again.started is None
    assert again.whole.variant == variant
    again.run()
    assert load_network(tmp_path / "run" / "best.safetensors").variant == variant
    assert read_info(tmp_path / "run" / "best.safetensors").notes["started_from"] == name
