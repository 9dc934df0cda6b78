"""Metrics against a computation by hand and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.data.classes import ClassSet
from enet_tvm.evaluation.metrics import ConfusionMatrix

THREE = ClassSet("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 255)


def measure(prediction, labels):
    confusion = ConfusionMatrix(THREE)
    confusion.update(np.asarray(prediction), np.asarray(labels))
    return confusion.metrics()


def test_by_hand():
    metrics = measure([0, 0, 1, 1, 2, 2, 2, 0], [0, 0, 0, 1, 1, 2, 2, 255])
    # a: 2 of 3 found, nothing else called a; b: 1 of 2, one a called b; c: 2 of 2, one b called c.
    assert metrics.class_iou == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert metrics.class_accuracy == pytest.approx((2 / 3, 1 / 2, 1))
    assert metrics.miou == pytest.approx(5 / 9)
    assert metrics.class_average == pytest.approx(13 / 18)
    assert metrics.global_accuracy == pytest.approx(5 / 7)
    assert metrics.pixels == 7
    assert metrics.to_dict()["classes"]["b"] == {"iou": pytest.approx(1 / 3), "accuracy": pytest.approx(1 / 2)}


def test_classes_that_do_not_occur_are_left_out_of_the_means():
    """Whether or not anything is taken for them: that lowers the IoU of the classes that it is of."""
    metrics = measure([0, 0, 1], [0, 0, 0])
    assert metrics.class_iou[0] == pytest.approx(2 / 3)
    assert all(math.isnan(iou) for iou in metrics.class_iou[1:])
    assert metrics.miou == pytest.approx(2 / 3)
    assert metrics.class_average == pytest.approx(2 / 3)
    assert metrics.absent == ("b", "c")
    assert metrics.to_dict()["absent"] == ["b", "c"]
    assert metrics.to_dict()["classes"]["c"] == {"iou": None, "accuracy": None}


def test_only_void():
    metrics = measure([0, 1], [255, 255])
    assert metrics.pixels == 0
    assert metrics.to_dict()["miou"] is None


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        measure([[0, 1]], [0, 1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_agrees_with_torchmetrics(seed):
    from torchmetrics.classification import MulticlassJaccardIndex  # five seconds, which not every worker is to spend

    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (2, 9, 7))
    labels.flat[:3] = (0, 1, 2)
    prediction = rng.integers(0, 3, labels.shape)
    reference = MulticlassJaccardIndex(3, average=None, ignore_index=255)(
        torch.from_numpy(prediction), torch.from_numpy(labels)
    )
    assert measure(prediction, labels).class_iou == pytest.approx(reference.tolist(), abs=1e-6)
