"""The loss: void counts nowhere, class weights are the paper's, Lovasz is the IoU at its corners."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.training.loss import SegmentationLoss, class_weights, descending, explicit_class_weights, lovasz_softmax
from enet_tvm.training.recipe import LossRecipe

VOID = 11
HISTOGRAM = np.arange(1, 12)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 11, 12, 9, generator=generator)
    return logits, torch.randint(0, 11, (2, 12, 9), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "recipe", [LossRecipe(lovasz=0), LossRecipe(cross_entropy=0, lovasz=1, lovasz_stride=1), LossRecipe(lovasz=0.5)]
)
def test_void_pixels_change_neither_loss_nor_gradient(recipe):
    loss = SegmentationLoss(recipe, HISTOGRAM, VOID)
    logits, labels = batch()
    labels[:, :5] = VOID
    other = logits.clone()
    other[:, :, :5] = 50 * torch.randn(2, 11, 5, 9)
    results = []
    for tensor in (logits, other):
        tensor.requires_grad_()
        value = loss(tensor, labels)
        value.backward()
        results.append(value.item())
        assert not tensor.grad[:, :, :5].any()
        assert tensor.grad[:, :, 5:].any()
    assert results[0] == pytest.approx(results[1], abs=1e-6)


def test_all_void_is_zero_and_differentiable():
    logits, labels = batch()
    logits.requires_grad_()
    value = SegmentationLoss(LossRecipe(lovasz=1.0), HISTOGRAM, VOID)(logits, torch.full_like(labels, VOID))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_class_weights_are_the_papers_up_to_a_factor():
    weights = class_weights(np.array([900, 90, 10]))
    paper = 1 / np.log(1.02 + np.array([0.9, 0.09, 0.01]))
    np.testing.assert_allclose(weights / weights[0], paper / paper[0])
    assert (weights * [0.9, 0.09, 0.01]).sum() == pytest.approx(1)
    assert np.isfinite(class_weights(np.array([5, 0]))).all()


def test_cross_entropy_alone_is_pytorchs():
    logits, labels = batch()
    ours = SegmentationLoss(LossRecipe(class_weight_constant=0, lovasz=0), HISTOGRAM, VOID)(logits, labels)
    assert ours.item() == pytest.approx(F.cross_entropy(logits, labels.long()).item(), rel=1e-6)


def test_bfloat16_logits_are_judged_in_float32():
    logits, labels = batch()
    loss = SegmentationLoss(LossRecipe(lovasz=1.0), HISTOGRAM, VOID)
    half = logits.bfloat16()
    assert loss(half, labels).dtype == torch.float32
    assert loss(half, labels).item() == loss(half.float(), labels).item()


def test_lovasz_of_hard_predictions_is_one_minus_the_iou():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (200,), generator=generator)
    prediction = torch.randint(0, 3, (200,), generator=generator)
    ious = []
    for c in range(3):
        ious.append(((labels == c) & (prediction == c)).sum() / ((labels == c) | (prediction == c)).sum())
    value = lovasz_softmax(F.one_hot(prediction, 3).T.float(), labels)
    assert value.item() == pytest.approx(1 - torch.stack(ious).mean().item(), abs=1e-5)


def test_lovasz_leaves_absent_classes_out():
    labels = torch.zeros(4, dtype=torch.long)
    perfect = F.one_hot(labels, 3).T.float()
    assert lovasz_softmax(perfect, labels).item() == 0


def test_label_smoothing_is_pytorchs():
    logits, labels = batch()
    ours = SegmentationLoss(LossRecipe(class_weight_constant=0, label_smoothing=0.1, lovasz=0), HISTOGRAM, VOID)(logits, labels)
    assert ours.item() == pytest.approx(F.cross_entropy(logits, labels.long(), label_smoothing=0.1).item(), rel=1e-6)


def test_class_weights_are_finite_for_classes_that_never_occur():
    weights = class_weights(np.array([100, 0, 5]))
    assert np.isfinite(weights).all()
    assert np.isfinite(class_weights(np.zeros(3))).all()
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss(LossRecipe(lovasz=1.0), np.array([100, 0, 5]), VOID)(
        logits, torch.zeros(1, 4, 4, dtype=torch.uint8)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


THREE = ClassSet("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), VOID)


@pytest.mark.parametrize(("given", "expected"), [((1, 2, 3), [1, 2, 3]), ({"c": 5, "a": 0}, [0, 1, 5]), (None, None)])
def test_explicit_class_weights(given, expected):
    recipe = LossRecipe(class_weights=given, lovasz=0)
    weights = explicit_class_weights(recipe, THREE)
    assert (None if weights is None else weights.tolist()) == expected
    if weights is None:
        return
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    ours = SegmentationLoss(recipe, np.ones(3), VOID, weights=weights)(logits, labels)
    assert torch.allclose(ours, F.cross_entropy(logits, labels, torch.tensor(expected).float()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((1, 2), "are 2 numbers, and three has 3 classes"),
        ({"d": 1}, "name 'd', and the classes are a, b, c"),
        ((0, 0, 0), "all zero"),
    ],
)
def test_class_weights_that_do_not_fit(given, words):
    with pytest.raises(UserError, match=words):
        explicit_class_weights(LossRecipe(class_weights=given), THREE)


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32), st.booleans())
def test_rows_are_ordered_as_pytorch_orders_them(rows, columns, seed, coarse):
    values = torch.from_numpy(np.random.default_rng(seed).random((rows, columns), np.float32))
    if coarse:  # many equal values, zero and one among them
        values = (values * 3).floor() / 2
    assert torch.equal(descending(values), values.argsort(dim=1, descending=True, stable=True))
    assert torch.equal(descending(values.T), values.T.argsort(dim=1, descending=True, stable=True))


@pytest.mark.parametrize("constant", [0, 1.02])
def test_only_the_hardest_pixels_count(constant):
    logits, labels = batch()
    labels[:, :3] = VOID
    logits.requires_grad_()
    loss = SegmentationLoss(LossRecipe(class_weight_constant=constant, hardest=0.25, lovasz=0), HISTOGRAM, VOID)
    value = loss(logits, labels)
    value.backward()
    known = labels != VOID
    each = F.cross_entropy(logits, labels.long(), loss.weights, ignore_index=VOID, reduction="none")[known]
    kept = each.argsort(descending=True)[: math.ceil(0.25 * int(known.sum()))]
    weights = torch.ones(len(each)) if loss.weights is None else loss.weights[labels[known].long()]
    torch.testing.assert_close(value, each[kept].sum() / weights[kept].sum())
    assert int(logits.grad.abs().sum(1).bool().sum()) == len(kept)


def test_all_pixels_are_the_hardest_of_all_of_them():
    logits, labels = batch()
    nearly, plain = (
        SegmentationLoss(LossRecipe(hardest=share, lovasz=0), HISTOGRAM, VOID)(logits, labels) for share in (1 - 1e-9, 1.0)
    )
    torch.testing.assert_close(nearly, plain)
