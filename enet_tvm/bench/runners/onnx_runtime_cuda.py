"""ONNX Runtime on this machine's GPU as a runner: input and output stay there, and all launches are one CUDA graph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.bench.runners.base import Case, PassTimes, Runner, RunnerMissingError
from enet_tvm.bench.runners.onnx_runtimes import exported

_PROVIDER = "CUDAExecutionProvider"
_INSTALL = "run: pip uninstall onnxruntime && pip install onnxruntime-gpu"


class OnnxRuntimeCudaRunner(Runner):
    """ONNX Runtime with its CUDA provider, in float32 without TF32.

    Parameters
    ----------
    case : Case
        Case that is run.
    device : {"cuda", "cpu"}
        ONNX Runtime's name of the device; "cpu" does the same on the processor.

    Raises
    ------
    RunnerMissingError
        When onnxruntime is missing, has no CUDA, or reaches no GPU.
    """

    on_gpu = True

    def __init__(self, case: Case, device: str = "cuda") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerMissingError("onnxruntime is not installed; run: pip install onnxruntime-gpu") from error
        if device == "cuda" and _PROVIDER not in onnxruntime.get_available_providers():
            raise RunnerMissingError(f"ONNX Runtime {onnxruntime.__version__} is built without CUDA; {_INSTALL}")
        self._file = exported(case)
        cuda = (_PROVIDER, {"use_tf32": "0", "enable_cuda_graph": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"})
        providers: list[Any] = [cuda] if device == "cuda" else ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(self._file), providers=providers)
        except Exception as error:  # what its provider raises without a driver has no common base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunnerMissingError(
                f"ONNX Runtime cannot use this machine's GPU ({reason[:120]}); see to its driver"
            ) from error
        if device == "cuda" and self._session.get_providers()[0] != _PROVIDER:
            raise RunnerMissingError("ONNX Runtime's CUDA provider does not load; install CUDA's and cuDNN's libraries for it")
        self.description = f"ONNX Runtime {onnxruntime.__version__} on {device}, float32 without TF32, one CUDA graph"
        (source,), (target,) = self._session.get_inputs(), self._session.get_outputs()
        value = onnxruntime.OrtValue
        self._input = value.ortvalue_from_numpy(np.zeros(source.shape, np.float32), device, 0)
        self._output = value.ortvalue_from_shape_and_type(target.shape, np.float32, device, 0)
        self._binding = self._session.io_binding()
        # A graph holds addresses: both stay where they are.
        self._binding.bind_ortvalue_input(source.name, self._input)
        self._binding.bind_ortvalue_output(target.name, self._output)
        self._last: PassTimes | None = None

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        begun = time.perf_counter()
        self._input.update_inplace(np.ascontiguousarray(x))
        there = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        computed = time.perf_counter()
        logits: NDArray[np.float32] = self._output.numpy()
        self._last = PassTimes(computed - there, there - begun + time.perf_counter() - computed)
        return logits

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass, by the host's clock, and of the transfer of its data."""
        return self._last

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the ONNX file."""
        return (self._file,)
