"""MNN as a runner, given the network in portable form by its own converter."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.portable_form import exported

_MISSING = "MNN is not installed; run: pip install 'enet-tvm[mnn]'"
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
"""What MNN's command ``mnnconvert`` calls. In a process of its own: it writes to the standard output."""
_LOW_MEMORY = 2
"""MNN's ``Memory_Low``, by which 8-bit weights stay so and inputs are rounded. As a number: its name has no effect."""


class MnnRunner(Runner):
    """MNN on the CPU.

    Its float16 is no runner: without an ARM processor's instructions "low" precision is float32.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "int8"}
        Data type that its convolutions multiply; for int8 each rounds its input by what that holds, without calibration.

    Raises
    ------
    RunnerMissingError
        When the package MNN is missing, or does not convert the network.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            from MNN import expr, nn
        except ImportError as error:
            raise RunnerMissingError(_MISSING) from error
        self.precision = precision
        self.description = f"MNN {importlib.metadata.version('MNN')}"
        self._expr: Any = expr
        self._file = converted(case, precision)
        settings = {"backend": "CPU", "numThread": case.threads, "precision": "high"}
        if precision == "int8":
            settings["memory"] = _LOW_MEMORY
        self._manager = nn.create_runtime_manager((settings,))
        self._module = nn.load_module_from_file(str(self._file), ["picture"], ["logits"], runtime_manager=self._manager)
        self._input = expr.placeholder(list(case.input_shape), expr.NCHW)

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        self._input.write(x)
        (logits,) = self._module.forward([self._input])
        planes = self._expr.convert(logits, self._expr.NCHW)  # what it reads is a view, which does not keep the memory
        return np.array(planes.read(), np.float32)

    def artifact_files(self) -> tuple[Path, ...]:
        """Return MNN's file."""
        return (self._file,)


def int8(case: Case) -> Runner:
    """Return MNN with convolutions of 8 bits."""
    return MnnRunner(case, "int8")


def converted(case: Case, precision: Precision = "float32") -> Path:
    """Return MNN's file of the network, made once; its weights are of float32, but for int8 those of convolutions.

    Raises
    ------
    RunnerMissingError
        When MNN does not convert the network, or is missing.
    """
    path = case.directory / f"{case.size}-{precision}.mnn"
    if not path.is_file():
        if importlib.util.find_spec("MNN") is None:
            raise RunnerMissingError(_MISSING)
        options = ["-f", "ONNX", "--modelFile", str(exported(case, precision)), "--MNNModel", str(path), "--bizCode", "enet"]
        options += ["--weightQuantBits", "8"] if precision == "int8" else []
        done = subprocess.run([sys.executable, "-c", _CONVERT, *options], capture_output=True, text=True, check=False)
        if not path.is_file():  # its status says nothing
            reason = (done.stderr or done.stdout).strip()[-200:]
            raise RunnerMissingError(f"MNN does not convert the network ({reason}); take another release of it")
    return path
