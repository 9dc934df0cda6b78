"""Event files, where the package is installed; a sentence where it is not."""

import sys

import pytest

from enet_tvm.training.tensorboard import tensorboard_observers
from enet_tvm.training.trainer import StageCost, TrainingCost

ROW = {"epoch": 1, "loss": 2.5, "learning_rate": 1e-3, "val_miou": None, "val_class_average": None, "val_global_accuracy": None}


def plan(done):
    return TrainingCost(1, 1, 1, (StageCost("network", 9, 1),), done, "cpu", 1, 1)


def test_without_the_package_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = []
    assert tensorboard_observers(tmp_path, said.append) == []
    assert len(said) == 1
    assert "tensorboard is not installed" in said[0]
    assert not list(tmp_path.iterdir())


def test_events_of_a_resumed_training_are_one_curve(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for done, losses in ((0, (3.0, 2.0, 9.0)), (2, (1.0,))):  # the third epoch was lost and is done again
        (observer,) = tensorboard_observers(tmp_path, pytest.fail)
        observer.started(plan(done))
        for epoch, loss in enumerate(losses, start=done + 1):
            observer.epoch_done(ROW | {"epoch": epoch, "loss": loss, "val_miou": 0.5 if epoch == 2 else None})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("val/miou")] == [(2, 0.5)]
