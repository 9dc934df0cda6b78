from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.calibration_pictures import PICTURES, CalibrationInputs, evenly_spread
from enet_tvm.data.source import SYNTHETIC
from enet_tvm.errors import UserError
from enet_tvm.size import Size

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.mark.parametrize(
    ("count", "most", "chosen"), [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (4, 1, [0]), (0, 3, []), (367, 64, None)]
)
def test_spread_from_the_first_to_the_last(count, most, chosen):
    found = evenly_spread(count, most)
    if chosen is not None:
        assert found == chosen
    assert len(found) == min(count, most)
    assert found == sorted(set(found))


def test_inputs_come_as_often_as_they_are_asked_for():
    inputs = CalibrationInputs(SYNTHETIC, Size(32, 24), MEAN, STD, most=3)
    once, again = list(inputs), list(inputs)
    assert len(inputs) == len(once) == 3
    assert all(x.shape == (1, 3, 24, 32) and x.dtype == np.float32 for x in once)
    np.testing.assert_array_equal(once, again)
    assert len(CalibrationInputs(SYNTHETIC, Size(32, 24), MEAN, STD)) == PICTURES


def test_pictures_of_a_folder_are_resized_and_normalised(tmp_path):
    colour = np.array([255, 51, 0], np.uint8)
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.broadcast_to(colour, (12, 16, 3)).copy()).save(tmp_path / "train/a.png")
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "trainannot/a.png")
    (tmp_path / "train.txt").write_text("train/a.png trainannot/a.png\n")
    (x,) = CalibrationInputs(str(tmp_path), Size(32, 24), MEAN, STD)
    expected = (colour / 255 - MEAN) / STD
    np.testing.assert_allclose(x, np.broadcast_to(expected[:, None, None], (1, 3, 24, 32)), rtol=1e-5, atol=1e-6)


def test_no_data_set(tmp_path):
    with pytest.raises(UserError, match="there is no data set directory"):
        CalibrationInputs(str(tmp_path / "nowhere"), Size(32, 24), MEAN, STD)
