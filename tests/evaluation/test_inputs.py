from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from enet_tvm.data.classes import CAMVID
from enet_tvm.errors import UserError
from enet_tvm.evaluation.inputs import open_inputs


@dataclass
class Manifest:
    classes: tuple[str, ...]


@dataclass
class Compiled:
    """What `open_inputs` asks of a segmenter."""

    manifest: Manifest
    size: tuple[int, int] = (64, 48)


ELEVEN = Compiled(Manifest(CAMVID.names))
FOUR = Compiled(Manifest(("a", "b", "c", "d")))


def test_streets_have_the_networks_size_and_labels():
    inputs = open_inputs(ELEVEN, synthetic=2)
    assert len(inputs) == len(list(inputs)) == 2
    picture, labels = inputs[1]
    assert picture.size == ELEVEN.size
    assert labels.shape == (48, 64)
    assert inputs.class_set == CAMVID


def test_streets_for_other_classes_have_no_labels():
    inputs = open_inputs(FOUR)
    assert inputs.class_set is None
    assert all(labels is None for _, labels in inputs)


def test_pictures_of_a_folder(pictures, tmp_path):
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    inputs = open_inputs(FOUR, images=[tmp_path])
    assert len(inputs) == 3
    np.testing.assert_array_equal(np.asarray(inputs[2][0]), np.asarray(pictures[2]))
    assert inputs.names[2] == str(tmp_path / "2.png")
    with pytest.raises(IndexError):
        inputs[3]


def test_data_set_of_other_classes():
    with pytest.raises(UserError, match="4 classes"):
        open_inputs(FOUR, data="synthetic")


def test_only_one_source(tmp_path):
    with pytest.raises(UserError, match="only one of"):
        open_inputs(ELEVEN, images=[tmp_path], synthetic=2)
