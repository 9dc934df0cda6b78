"""ExecuTorch with XNNPACK as a runner, given the network in portable form."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.calibrating import calibrated_on
from enet_tvm.files import atomic_file

_MISSING = "executorch is not installed; run: pip install 'enet-tvm[executorch]'"


class ExecuTorchRunner(Runner):
    """ExecuTorch on the CPU, with XNNPACK for all that it takes: all but nearest-neighbour enlargement.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "int8"}
        Data type of its convolutions; all else is of float32.

    Raises
    ------
    RunnerMissingError
        When the package executorch is missing, or is of another PyTorch than the one here.
    UserError
        When int8 has no data set to be calibrated on.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime, Verification
        except ImportError as error:
            raise RunnerMissingError(_MISSING) from error
        self.precision = precision
        self.description = f"ExecuTorch {importlib.metadata.version('executorch')}, XNNPACK"
        if precision == "int8":
            self.description += f", {calibrated_on(case)}"
        self._from_numpy = torch.from_numpy
        self._file = converted(case, precision)
        portable_lib._unsafe_reset_threadpool(case.threads)  # its only setting: the pool is of the process
        # The program holds the memory of its method's weights.
        self._program = Runtime.get().load_program(str(self._file), verification=Verification.Minimal)
        self._method = self._program.load_method("forward")

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        (logits,) = self._method.execute([self._from_numpy(x)])
        output: NDArray[np.float32] = logits.numpy()
        return output

    def artifact_files(self) -> tuple[Path, ...]:
        """Return ExecuTorch's file."""
        return (self._file,)


def int8(case: Case) -> Runner:
    """Return ExecuTorch with convolutions of 8 bits."""
    return ExecuTorchRunner(case, "int8")


def converted(case: Case, precision: Precision = "float32") -> Path:
    """Return ExecuTorch's file of the network, made once.

    Raises
    ------
    RunnerMissingError
        When the package executorch is missing.
    UserError
        When int8 has no data set to be calibrated on.
    """
    path = case.directory / f"{case.size}-{precision}.pte"
    if not path.is_file():
        import torch

        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise RunnerMissingError(_MISSING) from error
        from enet_tvm.bench.runners.executorch_int8 import quantised
        from enet_tvm.networks import load_network
        from enet_tvm.networks.portable import portable

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch, on what ExecuTorch calls
            program = torch.export.export(portable(load_network(case.weights)), (torch.zeros(case.input_shape),))
            if precision == "int8":
                program = quantised(program, case)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        with atomic_file(path) as temporary:
            temporary.write_bytes(lowered.to_executorch().buffer)
    return path
