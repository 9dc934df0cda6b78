"""Tuning for a GPU that is not at hand: kernels are compiled and assembled, and their times are those of the model.

It is `enet_tvm.compiler.cuda.cost`, which counts the assembler's output.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.compiler.cuda.calibration import figures_of
from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.prediction import PredictedKernels, PredictedPlace, write_prediction

if TYPE_CHECKING:
    import tvm

    from enet_tvm.compiler.pipeline import Compiled
    from enet_tvm.compiler.roofline import KernelPrediction
    from enet_tvm.targets.spec import GpuSpec


class ModelledKernels(PredictedKernels):
    """Compiles kernels of a GPU, and says what the model makes of them.

    Parameters
    ----------
    target : TargetSpec
        Target with the GPU.
    chip : Chip
        Figures of the GPU.
    directory : Path
        Directory for what is found of each kernel.
    workers : int, optional
        Number of processes that compile at once; by default `enet_tvm.machine.default_threads`.
    """

    def __init__(self, target: TargetSpec, chip: Chip, directory: Path, workers: int | None = None) -> None:
        assert target.gpu is not None
        directory.mkdir(parents=True, exist_ok=True)
        model = functools.partial(model_kernel, target=target.to_tvm(), gpu=target.gpu, chip=chip, directory=str(directory))
        super().__init__(model, workers)


def model_kernel(mod: tvm.IRModule, target: tvm.target.Target, gpu: GpuSpec, chip: Chip, directory: str) -> str:
    """Compile and assemble a kernel in a worker, and return a file in a folder of its own that says what the model makes of it.

    Raises
    ------
    ValueError
        When it takes more of the GPU than the target allows.
    """
    from enet_tvm.compiler.cuda.cost import kernel_bounds
    from enet_tvm.compiler.cuda.device_compiler import kernel_ptx
    from enet_tvm.compiler.cuda.machine_code import read_machine_code
    from enet_tvm.compiler.cuda.ptxas import assembled
    from enet_tvm.compiler.cuda.tools import find_cuda_tools
    from enet_tvm.compiler.kernels.gpu.geometry import geometry_of

    kernel = mod["main"]
    made = assembled(kernel_ptx(kernel, target, gpu.arch), gpu.arch, find_cuda_tools())
    (resources,) = made.resources
    if resources.spill_bytes:
        raise ValueError("it spills registers")
    if resources.registers > gpu.max_registers:
        raise ValueError(f"it takes more than {gpu.max_registers} registers")
    if resources.shared_bytes > gpu.max_shared_memory_per_block:
        raise ValueError(f"it takes more than {gpu.max_shared_memory_per_block} bytes of shared memory")
    code = read_machine_code(made.cubins, gpu.arch)[resources.name]
    bounds = kernel_bounds(code, resources, geometry_of(kernel), chip)
    seconds = 1e-6 * bounds.longest
    return write_prediction(directory, seconds, binding=bounds.binding, registers=resources.registers)


class Modelled(PredictedPlace):
    """The model of a target's GPU, in place of a machine that has one.

    Parameters
    ----------
    target : TargetSpec
        Target with the GPU.

    Attributes
    ----------
    chip : Chip
        Figures of the GPU.
    source : str
        What the times are from, as a phrase.

    Raises
    ------
    UserError
        When too little is known of the GPU; see `enet_tvm.compiler.cuda.calibration.figures_of`.
    """

    def __init__(self, target: TargetSpec) -> None:
        self._target = target
        figures = figures_of(target)
        self.chip = figures.chip
        self.source = f"the model of 'enet-tvm roofline' for {self.chip.arch}, {figures.source}"
        self._predictions: dict[Path, tuple[KernelPrediction, ...]] = {}

    @property
    def processor(self) -> str:
        """The model, whose figures are part of its name: with others it ranks kernels otherwise."""
        return f"the model of {self._target.name} ({self.chip.digest})"

    def timer(self, directory: Path) -> ModelledKernels:
        """Return what predicts kernels one by one, with a folder for what is found of each."""
        return ModelledKernels(self._target, self.chip, directory)

    def take(self, artifact: Path, compiled: Compiled) -> None:
        """Predict the launches of what an artifact was compiled to."""
        from enet_tvm.compiler.roofline import predict_compiled

        self._predictions[artifact] = predict_compiled(compiled, self.chip)

    def launch_seconds(self, artifact: Path) -> tuple[list[float], float]:
        """Return the predicted seconds of each launch of a forward pass, and of the whole of it."""
        seconds = [1e-6 * kernel.microseconds for kernel in self._predictions[artifact]]
        return seconds, sum(seconds)
