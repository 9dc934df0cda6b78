"""The instance-weighted IoU: by hand, against a plain loop over instances, and by its properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.data.classes import CAMVID, CITYSCAPES, ClassSet
from enet_tvm.evaluation.instance_iou import InstanceIou
from enet_tvm.evaluation.metrics import ConfusionMatrix

TOY = ClassSet(
    "toy",
    ("road", "person", "rider"),
    ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    255,
    categories=("flat", "human", "human"),
    instance_shares=(0.0, 0.25, 0.5),
)


def measure(class_set, *pictures):
    """Return the metrics of (prediction, labels, instances)."""
    confusion, weighted = ConfusionMatrix(class_set), InstanceIou(class_set)
    for prediction, labels, instances in pictures:
        confusion.update(np.asarray(prediction), np.asarray(labels))
        weighted.update(np.asarray(prediction), np.asarray(instances))
    return confusion.metrics(), weighted.metrics(confusion)


def test_by_hand():
    # Eight pixels, so that the average person has 2 of them and the average rider 4.
    labels = [[1, 1, 1, 1], [1, 2, 0, 0]]
    instances = [[1000, 1000, 1000, 1000], [1001, 2000, -1, -1]]
    prediction = [[1, 1, 0, 2], [1, 1, 1, 0]]
    plain, weighted = measure(TOY, (prediction, labels, instances))
    # Person: 2 pixels of 4 at weight 2/4 and 1 of 1 at weight 2; false: one of rider, one of road.
    # Rider: none of 1 at weight 4; one false. Human: 3 of 4 at 1/2, 1 of 1 at 2, 1 of 1 at 4; one false.
    assert weighted.class_iou[1:] == pytest.approx((3 / 6, 0))
    assert math.isnan(weighted.class_iou[0])
    assert math.isnan(weighted.category_iou[0])
    assert weighted.category_iou[1] == pytest.approx(7.5 / 9)
    assert weighted.class_mean == pytest.approx(0.25)
    assert weighted.category_mean == pytest.approx(7.5 / 9)
    assert weighted.instances == 3
    assert plain.categories == ("flat", "human")
    assert plain.class_iou[1] == pytest.approx(3 / 7)
    assert plain.category_iou == pytest.approx((1 / 3, 5 / 7))
    assert plain.category_miou == pytest.approx((1 / 3 + 5 / 7) / 2)


def test_groups_are_neither_right_nor_wrong():
    labels, instances = [[1, 1, 1, 1]], [[1000, -1, -1, -1]]
    _, found = measure(TOY, ([[1, 1, 1, 1]], labels, instances))
    _, missed = measure(TOY, ([[1, 0, 0, 0]], labels, instances))
    assert found.class_iou[1] == missed.class_iou[1] == 1


def test_a_class_that_is_only_hallucinated_scores_zero_and_one_that_is_nowhere_does_not_count():
    _, weighted = measure(TOY, ([[1, 0]], [[0, 0]], [[-1, -1]]))
    assert weighted.class_iou[1] == 0
    assert math.isnan(weighted.class_iou[2])
    assert weighted.class_mean == 0
    assert weighted.instances == 0


def test_a_category_counts_only_if_all_its_classes_have_instances():
    mixed = ClassSet(TOY.name, TOY.names, TOY.palette, 255, ("thing", "thing", "human"), TOY.instance_shares)
    _, weighted = measure(mixed, ([[1, 2]], [[1, 2]], [[1000, 2000]]))
    assert math.isnan(weighted.category_iou[0])
    assert weighted.category_iou[1] == weighted.category_mean == 1
    assert weighted.class_iou[1] == 1


def by_loop(class_set, pictures):
    """Return class and category iIoU by one mask at a time, on the original scale of 2048x1024 average sizes."""
    classes, categories = len(class_set), class_set.category_names
    right, wrong = np.zeros(classes), np.zeros(classes)
    category_right, category_wrong = dict.fromkeys(categories, 0.0), dict.fromkeys(categories, 0.0)
    false, category_false = np.zeros(classes), dict.fromkeys(categories, 0)
    for prediction, labels, instances in pictures:
        for key in set(instances[instances >= 0].tolist()):
            mask, label = instances == key, key // 1000
            weight = class_set.instance_shares[label] * mask.size / mask.sum()
            right[label] += weight * (prediction[mask] == label).sum()
            wrong[label] += weight * (prediction[mask] != label).sum()
            category = class_set.categories[label]
            inside = sum(class_set.categories[p] == category for p in prediction[mask])
            category_right[category] += weight * inside
            category_wrong[category] += weight * (mask.sum() - inside)
        for p, t in zip(prediction.ravel(), labels.ravel(), strict=True):
            if t != 255:
                false[p] += p != t
                category_false[class_set.categories[p]] += class_set.categories[p] != class_set.categories[t]
    with np.errstate(invalid="ignore"):
        iou = right / (right + wrong + false)
        category_iou = [
            np.divide(category_right[c], category_right[c] + category_wrong[c] + category_false[c])
            for c in ("human", "vehicle")
        ]
    return iou[11:], category_iou


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_agrees_with_a_loop_over_instances(seed):
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(2):
        labels = rng.choice([0, 2, 11, 12, 13, 18, 255], (6, 8))
        # Some of each class's pixels are a group.
        numbers = rng.integers(-1, 3, labels.shape)
        instances = np.where((labels >= 11) & (labels < 255) & (numbers >= 0), labels * 1000 + numbers, -1)
        pictures.append((rng.choice([0, 2, 11, 12, 13, 18], labels.shape), labels, instances))
    _, weighted = measure(CITYSCAPES, *pictures)
    classes, categories = by_loop(CITYSCAPES, pictures)
    assert weighted.class_iou[11:] == pytest.approx(classes, nan_ok=True)
    assert weighted.category_iou[5:] == pytest.approx(categories, nan_ok=True)
    assert all(math.isnan(iou) for iou in (*weighted.class_iou[:11], *weighted.category_iou[:5]))


def test_instances_of_average_size_weigh_as_pixels_do():
    labels = np.array([[0, 1, 1, 2, 2, 2, 2, 0]])
    instances = np.array([[-1, 1000, 1000, 2000, 2000, 2000, 2000, -1]])
    prediction = np.array([[0, 1, 0, 2, 2, 1, 0, 2]])
    plain, weighted = measure(TOY, (prediction, labels, instances))
    assert weighted.class_iou[1:] == pytest.approx(plain.class_iou[1:])


def test_the_scale_of_the_picture_does_not_matter():
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 2], (4, 6))
    instances = np.where(labels > 0, labels * 1000 + rng.integers(0, 2, labels.shape), -1)
    prediction = rng.choice([0, 1, 2], labels.shape)
    small = measure(TOY, (prediction, labels, instances))[1]
    large = measure(TOY, tuple(m.repeat(3, 0).repeat(3, 1) for m in (prediction, labels, instances)))[1]
    assert large.class_iou[1:] == pytest.approx(small.class_iou[1:])
    assert large.category_mean == pytest.approx(small.category_mean)


def test_misuse():
    with pytest.raises(ValueError, match="no instances"):
        InstanceIou(CAMVID)
    with pytest.raises(ValueError, match="differ in shape"):
        InstanceIou(TOY).update(np.zeros((1, 2)), np.zeros((2, 1)))
