"""Tuning for a GPU that is not at hand: kernels are compiled and assembled, and their times are those of the model.

`ModelledKernels` stands in for `enet_tvm.tuning.measure.Measurer`, `Modelled` for the machine that a network runs on. Both take
their times from `enet_tvm.compiler.cuda.cost`, which counts the assembler's output.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from enet_tvm.compiler.cuda.calibration import figures_of
from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.compiler.tuning_log import Parity
from enet_tvm.files import read_json, write_json
from enet_tvm.machine import default_threads
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.measure import Outcome, builder_pool, built_or_failed
from enet_tvm.tuning.metaschedule import lean_workers
from enet_tvm.tuning.network import Place

if TYPE_CHECKING:
    import tvm

    from enet_tvm.compiler.pipeline import Compiled
    from enet_tvm.compiler.roofline import KernelPrediction
    from enet_tvm.targets.spec import GpuSpec

_RECORD = "kernel.json"
_TIMEOUT_SECONDS = 120.0


class ModelledKernels:
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
        self._pool = builder_pool(_TIMEOUT_SECONDS, workers or default_threads().threads)
        self._model_one = functools.partial(
            model_kernel, target=target.to_tvm(), gpu=target.gpu, chip=chip, directory=str(directory)
        )

    def build(self, modules: Sequence[tvm.IRModule]) -> list[Path | Outcome]:
        """Compile and assemble modules of one function ``main``, several at once.

        Returns
        -------
        list of Path or Outcome
            A file that says what the model makes of each; a failure, such as a kernel that spills registers, in its place.
        """
        with lean_workers():
            results = list(self._pool.map_with_error_catching(self._model_one, modules))
        return [built_or_failed(result, _TIMEOUT_SECONDS, "") for result in results]

    def run(self, libraries: Sequence[Path], arguments: Sequence[Any]) -> list[Outcome]:
        """Return the seconds that the model makes of what `build` has made; arguments are of no use."""
        return [Outcome((float(read_json(path, "tune again")["seconds"]),)) for path in libraries]

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._pool._threadpool.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False)


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
    from enet_tvm.compiler.kernels.gpu.geometry import argument_bytes, geometry_of

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
    bounds = kernel_bounds(code, resources, geometry_of(kernel), argument_bytes(kernel), chip)
    path = Path(tempfile.mkdtemp(dir=directory)) / _RECORD
    write_json(path, {"seconds": 1e-6 * bounds.longest, "binding": bounds.binding, "registers": resources.registers})
    return str(path)


class Modelled(Place):
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

    modelled: ClassVar[bool] = True

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

    def take(self, artifact: Path, compiled: Compiled) -> None:
        """Predict the launches of what an artifact was compiled to."""
        from enet_tvm.compiler.roofline import predict_compiled

        self._predictions[artifact] = predict_compiled(compiled, self.chip)

    def launch_seconds(self, artifact: Path) -> tuple[list[float], float]:
        """Return the predicted seconds of each launch of a forward pass, and of the whole of it."""
        seconds = [1e-6 * kernel.microseconds for kernel in self._predictions[artifact]]
        return seconds, sum(seconds)

    def compare(self, artifacts: Mapping[str, Path], seconds: float) -> dict[str, float]:
        """Return the predicted seconds of a forward pass of each artifact."""
        return {name: self.launch_seconds(path)[1] for name, path in artifacts.items()}

    def parity(self, artifact: Path, untuned: Path, weights: Path) -> tuple[Parity | None, bool]:
        """Return that the artifact did not run, which is no reason against it: tests run every kernel at all of its points."""
        return None, True
