"""The network in portable form with numbers of 8 bits, by NNCF, OpenVINO's own tool."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from enet_tvm.bench.runners.base import Case, RunnerMissingError
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.bench.runners.portable_form import exported
from enet_tvm.files import atomic_directory

_NAME = "enet.xml"


def quantised(case: Case) -> Path:
    """Return OpenVINO's file of a case's network with 8-bit convolutions, written once with its weights beside it.

    The portable form keeps more of PyTorch's labels in 8 bits than the window form, and has no slices with strides, which
    OpenVINO computes in float32. Symmetric codes keep more labels than asymmetric ones.

    Raises
    ------
    RunnerMissingError
        When the package nncf is missing.
    UserError
        When there is no data set to calibrate on.
    """
    folder = case.directory / f"{case.size}-openvino-int8"
    if not folder.is_dir():
        os.environ.setdefault("NNCF_CI", "1")  # otherwise it tells its makers that it is used
        try:
            import nncf
            import openvino
        except ImportError as error:
            raise RunnerMissingError("nncf is not installed; run: pip install 'enet-tvm[nncf]'") from error
        inputs = calibration_inputs(case)
        nncf.set_log_level(30)
        with contextlib.redirect_stdout(io.StringIO()):  # its progress
            model = nncf.quantize(
                openvino.Core().read_model(exported(case)),
                nncf.Dataset(inputs),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(inputs),
            )
        with atomic_directory(folder) as temporary:
            openvino.save_model(model, temporary / _NAME, compress_to_fp16=False)
    return folder / _NAME
