"""LiteRT with XNNPACK as a runner, given the network in portable form."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.calibrating import calibrated_on
from enet_tvm.bench.runners.portable_form import exported
from enet_tvm.machine import cpu_features

_MISSING = "ai-edge-litert is not installed; run: pip install 'enet-tvm[litert]'"
_FLOAT16 = {"avx512_fp16", "asimdhp"}
"""What the kernel calls arithmetic of float16, on x86 and on ARM."""


class LiteRtRunner(Runner):
    """LiteRT on the CPU, with XNNPACK for all that it takes: all but nearest-neighbour enlargement.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "float16", "int8"}
        Data type that XNNPACK computes in; int8 is that of the convolutions, and all else is of float32.

    Raises
    ------
    RunnerMissingError
        When the package ai-edge-litert is missing, for int8 ai-edge-quantizer too, the network has what is not written for
        it, or the processor has no arithmetic of float16, without which XNNPACK stays with float32.
    UserError
        When int8 has no data set to be calibrated on.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise RunnerMissingError(_MISSING) from error
        if precision == "float16" and not cpu_features() & _FLOAT16:
            raise RunnerMissingError("the processor has no arithmetic of float16, so LiteRT computes in float32; leave it out")
        self.precision = precision
        self.description = f"LiteRT {importlib.metadata.version('ai-edge-litert')}, XNNPACK"
        if precision == "int8":
            self.description += f", {calibrated_on(case)}"
        self._file = written(case, precision)
        self._interpreter = Interpreter(str(self._file), num_threads=case.threads)
        self._interpreter.allocate_tensors()
        (source,), (target,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output = source["index"], target["index"]

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, a view of what has its channels last."""
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits.transpose(0, 3, 1, 2)

    def artifact_files(self) -> tuple[Path, ...]:
        """Return LiteRT's file."""
        return (self._file,)


def float16(case: Case) -> Runner:
    """Return LiteRT in float16."""
    return LiteRtRunner(case, "float16")


def int8(case: Case) -> Runner:
    """Return LiteRT with convolutions of 8 bits."""
    return LiteRtRunner(case, "int8")


def written(case: Case, precision: Precision = "float32") -> Path:
    """Return LiteRT's file of the network, made once.

    Raises
    ------
    RunnerMissingError
        When the network has what is not written for it, the package ai-edge-litert, which brings the schema, is missing, or
        for int8 the package ai-edge-quantizer.
    UserError
        When int8 has no data set to be calibrated on.
    """
    path = case.directory / f"{case.size}-{precision}.tflite"
    if precision == "int8" and not path.is_file():
        from enet_tvm.bench.runners.litert_int8 import quantise

        quantise(written(case), path, case)
    if not path.is_file():
        from enet_tvm.bench.runners.tflite_file import NotWritableError, write_tflite

        try:
            write_tflite(exported(case, precision), path, float16=precision == "float16")
        except ImportError as error:
            raise RunnerMissingError(_MISSING) from error
        except NotWritableError as error:
            raise RunnerMissingError(f"the network cannot be written for LiteRT, because {error}; leave it out") from error
    return path
