"""The network in portable form with numbers of 8 bits, by ONNX Runtime's own tool."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from enet_tvm.bench.runners.base import Case
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.bench.runners.portable_form import exported
from enet_tvm.files import atomic_file


def quantised(case: Case) -> Path:
    """Return the ONNX file of a case's network with 8-bit convolutions, written once.

    Weights have a scale for each output channel, activations one each, by their largest magnitude on the pictures. Unpooling
    stays in float32, for it compares values for equality.

    Raises
    ------
    UserError
        When there is no data set to calibrate on.
    """
    path = case.directory / f"{case.size}-int8.onnx"
    if not path.is_file():
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Pictures(CalibrationDataReader):
            """The calibration's pictures, as the tool asks for them."""

            def __init__(self) -> None:
                self._inputs = iter(calibration_inputs(case))

            def get_next(self) -> dict[str, Any] | None:
                x = next(self._inputs, None)
                return None if x is None else {"picture": x}

        source, pictures = exported(case), Pictures()
        unpooling = [node.name for node in onnx.load(source).graph.node if "unpool" in node.name]
        with atomic_file(path) as temporary, tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder, "prepared.onnx")
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                *(str(prepared), str(temporary), pictures),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=unpooling,
                extra_options={"ActivationSymmetric": True},
            )
    return path
