"""A file of LiteRT with convolutions of 8 bits, by LiteRT's own quantiser."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np

from enet_tvm.bench.runners.base import Case, RunnerMissingError
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.bench.runners.tflite_file import SIGNATURE
from enet_tvm.files import atomic_file


def quantise(source: Path, path: Path, case: Case) -> None:
    """Write a case's file of LiteRT anew with 8-bit convolutions; weights have a scale for each output channel.

    All else stays in float32: XNNPACK has no other PReLU, and unpooling compares values for equality.

    Raises
    ------
    RunnerMissingError
        When the package ai-edge-quantizer is missing.
    UserError
        When there is no data set to calibrate on.
    """
    try:
        from ai_edge_quantizer.qtyping import TFLOperationName
        from ai_edge_quantizer.quantizer import Quantizer
    except ImportError as error:
        raise RunnerMissingError("ai-edge-quantizer is not installed; run: pip install 'enet-tvm[litert-int8]'") from error
    inputs = [{"picture": np.ascontiguousarray(x.transpose(0, 2, 3, 1))} for x in calibration_inputs(case)]
    quantiser = Quantizer(str(source))
    for operator in (TFLOperationName.CONV_2D, TFLOperationName.CONV_2D_TRANSPOSE):
        quantiser.add_static_config(".*", operator, activation_num_bits=8, weight_num_bits=8)
    progress = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
        warnings.simplefilter("ignore")  # that it keeps all tensors, which it asks for itself
        ranges = quantiser.calibrate({SIGNATURE: inputs}, num_threads=case.threads)
        result = quantiser.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    with atomic_file(path) as temporary:
        temporary.write_bytes(result.quantized_model)
