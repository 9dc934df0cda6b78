"""Rare classes: windows hold them, and what is pasted takes its labels along."""

import numpy as np
import pytest
import torch

from enet_tvm.data.transforms import Augmentation, Crop, Window
from enet_tvm.training.rare import Draft, Paste, RareClasses, draw_draft, make
from enet_tvm.training.recipe import RareRecipe

VOID = 11
SIZE = (24, 32)
ZOOMED = Augmentation(scale=(0.5, 2.0), aspect=0.2, flip=0.5)


def coded(labels):
    """Return a picture whose colour says its label."""
    return (labels * 20)[None].repeat(3, 1, 1)


def whole(flip=False):
    return Crop(Window(0, 48, 0, 48), Window(0, 64, 0, 64), (48, 64), flip)


@pytest.fixture
def labels():
    """Three pictures of class 1; the second holds a sign (6) of three pixels, the third void beside a fence (7)."""
    pictures = [torch.ones(48, 64, dtype=torch.uint8) for _ in range(3)]
    pictures[1][20:23, 40] = 6
    pictures[2][:, :8] = VOID
    pictures[2][30:33, 10:12] = 7
    return pictures


def histogram(labels):
    return sum(np.bincount(picture[picture != VOID].numpy(), minlength=11) for picture in labels)


def test_rare_is_what_is_there_but_seldom(labels):
    assert RareClasses(labels, histogram(labels), 0.02).classes == [6, 7]
    assert RareClasses(labels, histogram(labels), 0.0).classes == []


def test_rare_pixels_are_drawn_by_class_not_by_frequency(labels):
    rare, rng = RareClasses(labels, histogram(labels), 0.02), np.random.default_rng(0)
    drawn = [rare.draw(rng) for _ in range(200)]
    assert {int(labels[picture][pixel]) for picture, pixel in drawn} == {6, 7}
    assert 60 < sum(picture == 1 for picture, _ in drawn) < 140


def test_a_window_holds_the_rare_class_that_it_is_for(labels):
    rare, rng = RareClasses(labels, histogram(labels), 0.02), np.random.default_rng(1)
    shapes, pictures = [(48, 64)] * 3, [coded(truth) for truth in labels]
    near = Augmentation(scale=(1.0, 2.0), flip=0.5)
    for _ in range(50):
        draft = draw_draft(0, shapes, SIZE, near, RareRecipe(windows=1.0), rare, 11, rng)
        _, truth = make(draft, pictures, labels, VOID)
        assert draft.source in (1, 2)
        assert {6, 7} & set(truth.unique().tolist())


def test_what_is_pasted_takes_its_labels_along_and_void_is_never_pasted(labels):
    rare, rng = RareClasses(labels, histogram(labels), 0.02), np.random.default_rng(2)
    shapes, pictures = [(48, 64)] * 3, [coded(truth) for truth in labels]
    pasted = 0
    for _ in range(50):
        draft = draw_draft(0, shapes, SIZE, ZOOMED, RareRecipe(paste=1.0), rare, 11, rng)
        picture, truth = make(draft, pictures, labels, VOID)
        # Zooming blurs colours at the borders of things, but what was not pasted is untouched.
        assert (picture[0][truth == 1] == 20).all()
        pasted += int(torch.isin(truth, torch.tensor([6, 7], dtype=torch.uint8)).any())
    assert pasted > 40


def test_rare_things_are_pasted_where_they_are_in_their_window(labels):
    pictures = [coded(truth) for truth in labels]
    picture, truth = make(Draft(0, whole(), (Paste(1, whole(flip=True), (6, 7)),)), pictures, labels, VOID)
    expected = labels[0].clone()
    expected[20:23, 63 - 40] = 6
    assert torch.equal(truth, expected)
    assert torch.equal(picture, coded(expected))


def test_half_of_the_classes_are_mixed_in(labels):
    many = torch.arange(8, dtype=torch.uint8).repeat_interleave(8).repeat(48, 1)
    many[:6] = VOID
    everything = [*labels, many]
    pictures = [coded(truth) for truth in everything]
    order = (7, 3, 9, 10, 0, 1, 2, 4, 5, 6, 8)
    picture, truth = make(Draft(0, whole(), (Paste(3, whole(), order, 0.5),)), pictures, everything, VOID)
    chosen = torch.isin(many, torch.tensor([7, 3, 0, 1], dtype=torch.uint8))
    assert torch.equal(truth, torch.where(chosen, many, labels[0]))
    assert torch.equal(picture, coded(truth))


def test_nothing_is_drawn_for_what_is_not_wanted(labels):
    rare = RareClasses(labels, histogram(labels), 0.02)
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    plain = draw_draft(0, [(48, 64)] * 3, SIZE, ZOOMED, RareRecipe(), rare, 11, first)
    assert plain.pastes == ()
    none_rare = draw_draft(
        0,
        [(48, 64)] * 3,
        SIZE,
        ZOOMED,
        RareRecipe(windows=1.0, paste=1.0, below=0.0),
        RareClasses(labels, histogram(labels), 0.0),
        11,
        second,
    )
    assert none_rare == plain
    assert first.random() == second.random()
