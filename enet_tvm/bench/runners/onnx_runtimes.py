"""ONNX Runtime and OpenVINO as runners, given the network in window form so that neither has to scatter, or quantised."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.calibrating import calibrated_on


def load_libraries() -> None:
    """Import ONNX Runtime and OpenVINO, as far as they are installed."""
    for name in ("onnxruntime", "openvino"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def exported(case: Case) -> Path:
    """Return the ONNX file of a case's network, written once."""
    path = case.directory / f"{case.size}.onnx"
    if not path.is_file():
        # Imported here: a process that only runs the file is to hold no PyTorch.
        from enet_tvm.compiler.frontend.onnx_export import export_onnx
        from enet_tvm.networks import load_network, read_info

        export_onnx(load_network(case.weights), read_info(case.weights), case.size, path)
    return path


class OnnxRuntimeRunner(Runner):
    """ONNX Runtime on the CPU, all graph optimisations on.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "int8"}
        Data type of its convolutions; in int8, PReLUs and unpooling are of float32, for it has no others.

    Raises
    ------
    RunnerMissingError
        When the package onnxruntime is missing.
    UserError
        When int8 has no data set to be calibrated on.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerMissingError("onnxruntime is not installed; run: pip install onnxruntime") from error
        self.precision = precision
        self.description = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        if precision == "int8":
            from enet_tvm.bench.runners.onnx_runtime_int8 import quantised

            self.description += f", {calibrated_on(case)}"
            self._file = quantised(case)
            # Signed codes are allowed on ARM only, unless one asks: a third of the convolutions would be in float32.
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        else:
            self._file = exported(case)
        self._session = onnxruntime.InferenceSession(str(self._file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        logits: NDArray[np.float32] = self._session.run(None, {self._input: x})[0]
        return logits

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the ONNX file."""
        return (self._file,)


def int8_onnx_runtime(case: Case) -> Runner:
    """Return ONNX Runtime with convolutions of 8 bits."""
    return OnnxRuntimeRunner(case, "int8")


_NAMES: dict[Precision, tuple[str, str]] = {
    "float32": ("FP32", "f32"),
    "float16": ("FP16", "f16"),
    "bfloat16": ("BF16", "bf16"),
}
"""What OpenVINO calls the data types that it is told to compute in: among what a processor can, and as a setting."""


class OpenVinoRunner(Runner):
    """OpenVINO on the CPU, tuned for latency.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "float16", "bfloat16", "int8"}
        Data type that it computes in; beside int8 it chooses another itself, and the description says which.

    Raises
    ------
    RunnerMissingError
        When the package openvino is missing, for int8 nncf too, or it does not compute so on this processor.
    UserError
        When int8 has no data set to be calibrated on.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise RunnerMissingError("openvino is not installed; run: pip install openvino") from error
        self.precision = precision
        self.description = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        core = openvino.Core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": case.threads}
        if precision == "int8":
            from enet_tvm.bench.runners.openvino_int8 import quantised

            self._file = quantised(case)
        else:
            kind, hint = _NAMES[precision]
            if kind not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                raise RunnerMissingError(f"OpenVINO does not compute in {precision} on this processor; leave it out")
            settings["INFERENCE_PRECISION_HINT"] = hint
            self._file = exported(case)
        self._compiled = core.compile_model(str(self._file), "CPU", settings)
        if precision == "int8":
            rest = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            self.description += f", {calibrated_on(case)}, the rest {rest}"
        self._request = self._compiled.create_infer_request()

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        self._request.infer([x], share_inputs=True)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return logits

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the ONNX file, or OpenVINO's of layers and of weights."""
        weights = self._file.with_suffix(".bin")
        return (self._file, weights) if weights.is_file() else (self._file,)


def float16_openvino(case: Case) -> Runner:
    """Return OpenVINO in float16."""
    return OpenVinoRunner(case, "float16")


def bfloat16_openvino(case: Case) -> Runner:
    """Return OpenVINO in bfloat16."""
    return OpenVinoRunner(case, "bfloat16")


def int8_openvino(case: Case) -> Runner:
    """Return OpenVINO with convolutions of 8 bits."""
    return OpenVinoRunner(case, "int8")
