from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from enet_tvm.bench.runners.calibrating import calibrated_on, calibration_inputs
from enet_tvm.data.calibration_pictures import CalibrationInputs
from enet_tvm.data.source import SYNTHETIC
from enet_tvm.errors import UserError
from enet_tvm.networks import read_info


def test_a_case_is_calibrated_at_its_size_with_the_normalisation_of_its_weights(case):
    info = read_info(case.weights)
    expected = CalibrationInputs(SYNTHETIC, case.size, info.mean, info.std)
    np.testing.assert_array_equal(next(iter(calibration_inputs(case))), next(iter(expected)))
    assert calibrated_on(case) == "int8 calibrated on drawn streets"


def test_a_data_set_that_is_given(case, tmp_path):
    elsewhere = replace(case, data=str(tmp_path / "camvid"))
    assert calibrated_on(elsewhere) == "int8 calibrated on camvid"
    with pytest.raises(UserError, match="there is no data set directory"):
        calibration_inputs(elsewhere)
