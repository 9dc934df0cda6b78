"""What a case's int8 is calibrated on, for the runtimes that quantise by tools of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.bench.runners.base import Case

if TYPE_CHECKING:
    from enet_tvm.data.calibration_pictures import CalibrationInputs


def calibration_inputs(case: Case) -> CalibrationInputs:
    """Return the inputs that a case is calibrated on: those of ``enet-tvm calibrate --data``, at the case's size.

    Raises
    ------
    UserError
        When there is no such data set, or the weights cannot be read.
    """
    # Imported here: a process that only runs what was quantised is to hold no PyTorch.
    from enet_tvm.data.calibration_pictures import CalibrationInputs
    from enet_tvm.data.source import SYNTHETIC
    from enet_tvm.networks import read_info

    info = read_info(case.weights)
    return CalibrationInputs(case.data or SYNTHETIC, case.size, info.mean, info.std)


def calibrated_on(case: Case) -> str:
    """Return in words what a case is calibrated on."""
    return f"int8 calibrated on {Path(case.data).name if case.data else 'drawn streets'}"
