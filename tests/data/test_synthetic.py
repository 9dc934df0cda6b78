"""The drawn street: deterministic, labelled within its classes, of any size, and not trivial."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.data.classes import CAMVID
from enet_tvm.data.synthetic import Street, SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size

SMALL = Size(160, 120)


def test_labels_are_those_of_camvid():
    assert tuple(label.name.lower() for label in Street) == (*CAMVID.names, "unlabelled")
    assert CAMVID.ignore_index == Street.UNLABELLED


def test_same_seed_index_and_size_give_the_same_sample():
    first, second = SyntheticStreet(SMALL, 3, seed=5), SyntheticStreet(SMALL, 10, seed=5)
    for (picture, labels), (again, labels_again) in zip(first, second[:3], strict=True):
        assert np.array_equal(picture, again)
        assert np.array_equal(labels, labels_again)


def test_another_seed_or_index_gives_another_scene():
    scenes = [SyntheticStreet(SMALL, 2, seed=seed)[index][1] for seed in (0, 1) for index in (0, 1)]
    for i, scene in enumerate(scenes):
        assert all(np.mean(scene != other) > 0.05 for other in scenes[i + 1 :])


def test_another_size_shows_the_same_scene():
    large = SyntheticStreet(Size(320, 240), 1)[0][1][1::2, 1::2]
    assert np.mean(large == SyntheticStreet(SMALL, 1)[0][1]) > 0.9


@given(width=st.integers(1, 200), height=st.integers(1, 200), index=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_any_size(width, height, index):
    picture, labels = SyntheticStreet(Size(width, height), 51)[index]
    assert picture.mode == "RGB"
    assert picture.size == (width, height)
    assert labels.dtype == np.uint8
    assert labels.shape == (height, width)
    assert labels.max() <= Street.UNLABELLED


def test_every_class_occurs_within_a_few_pictures():
    counts = sum(np.bincount(labels.ravel(), minlength=12) for _, labels in SyntheticStreet(SMALL, 12))
    share = counts / counts.sum()
    assert (share > 2e-4).all(), dict(zip(Street, share, strict=True))
    assert share.max() < 0.6


def test_colour_alone_does_not_tell_the_class():
    """A nearest-mean-colour classifier must stay far from perfect, or the street would be trivial."""
    samples = [(np.asarray(picture, np.float32), labels) for picture, labels in SyntheticStreet(SMALL, 8)]
    pixels = np.concatenate([picture.reshape(-1, 3) for picture, _ in samples])
    labels = np.concatenate([labels.ravel() for _, labels in samples])
    means = np.stack([pixels[labels == k].mean(0) for k in range(11)])
    guess = np.argmin(((pixels[:, None] - means) ** 2).sum(-1), axis=1)
    assert 0.05 < np.mean(guess == labels) < 0.6


def test_is_a_sequence():
    street = SyntheticStreet(SMALL, 3)
    assert len(street) == len(list(street)) == 3
    assert np.array_equal(street[-1][1], street[2][1])
    with pytest.raises(IndexError):
        street[3]


@pytest.mark.parametrize(("size", "count", "seed"), [((0, 8), 1, 0), ((8, 8), -1, 0), ((8, 8), 1, -1)])
def test_impossible_streets_are_refused(size, count, seed):
    with pytest.raises(UserError, match="no street can be drawn"):
        SyntheticStreet(Size(*size), count, seed)


def test_needs_no_torch():
    code = "import sys, enet_tvm.data.synthetic; assert not {'torch', 'tvm'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
