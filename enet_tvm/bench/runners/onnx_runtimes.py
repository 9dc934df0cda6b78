"""ONNX Runtime and OpenVINO as runners, given the network in window form so that neither has to scatter."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError


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

    Raises
    ------
    RunnerMissingError
        When the package onnxruntime is missing.
    """

    def __init__(self, case: Case) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerMissingError("onnxruntime is not installed; run: pip install onnxruntime") from error
        self.description = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
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


class OpenVinoRunner(Runner):
    """OpenVINO on the CPU in float32, tuned for latency.

    Raises
    ------
    RunnerMissingError
        When the package openvino is missing.
    """

    def __init__(self, case: Case) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RunnerMissingError("openvino is not installed; run: pip install openvino") from error
        self.description = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        core = openvino.Core()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": case.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._file = exported(case)
        self._compiled = core.compile_model(str(self._file), "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        self._request.infer([x], share_inputs=True)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return logits

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the ONNX file."""
        return (self._file,)
