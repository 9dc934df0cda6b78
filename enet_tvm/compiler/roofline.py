"""The time of a network on a GPU, predicted kernel by kernel, beside what the paper measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from enet_tvm.artifact import Precision
from enet_tvm.compiler.compile import compile_untuned
from enet_tvm.compiler.cuda.calibration import figures_of
from enet_tvm.compiler.cuda.cost import Bounds, Chip, kernel_bounds
from enet_tvm.compiler.cuda.machine_code import read_machine_code
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import find_cuda_tools
from enet_tvm.compiler.kernels.gpu.geometry import Geometry, geometry_of
from enet_tvm.compiler.pipeline import Compiled
from enet_tvm.compiler.workload import Workload
from enet_tvm.size import Size

PAPER: Mapping[str, Mapping[Size, float]] = {
    "Jetson TX1": {Size(480, 320): 47.0, Size(640, 360): 69.0, Size(1280, 720): 262.0},
    "Titan X": {Size(480, 320): 7.0, Size(640, 360): 21.0, Size(1280, 720): 46.0},
}
"""Milliseconds of a frame in table 2 of the paper (Paszke, Chaurasia, Kim, Culurciello, 2016), by GPU and input size."""

PAPER_SIZES = tuple(PAPER["Jetson TX1"])
"""Input sizes that the paper measured."""


@dataclass(frozen=True)
class KernelPrediction:
    """One launch of a forward pass.

    Attributes
    ----------
    kernel : str
        Name of the kernel.
    layer : str
        Sub-module of the network whose result it writes; empty for a kernel of TVM's own.
    flops : int
        Operations, two for each multiply-add.
    geometry : Geometry
        Blocks and threads of the launch, and the bytes that it moves.
    registers : int
        Registers of a thread.
    bytes_per_fma : float or None
        Bytes loaded into registers for each multiply-add in the worst of its hot loops; None without one.
    bounds : Bounds
        Microseconds of each part of the GPU.
    launch_us : float
        Microseconds from the end of the kernel before to its start.
    """

    kernel: str
    layer: str
    flops: int
    geometry: Geometry
    registers: int
    bytes_per_fma: float | None
    bounds: Bounds
    launch_us: float

    @property
    def microseconds(self) -> float:
        """Predicted time of the launch, with what passes before it starts."""
        return self.bounds.longest + self.launch_us

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {**asdict(self), "binding": self.bounds.binding, "microseconds": self.microseconds}


@dataclass(frozen=True)
class Prediction:
    """The forward pass of a network on a GPU.

    Attributes
    ----------
    target : str
        Name of the target.
    size : Size
        Input size.
    chip : Chip
        The GPU.
    kernels : tuple of KernelPrediction
        Launches in order.
    source : str
        Where the GPU's figures are from, as `enet_tvm.compiler.cuda.calibration.Figures` says.
    dtype : {"float32", "float16"}
        Type that tensors between kernels are stored as.
    """

    target: str
    size: Size
    chip: Chip
    kernels: tuple[KernelPrediction, ...]
    source: str = "as documents say"
    dtype: Precision = "float32"

    @property
    def kernel_ms(self) -> float:
        """Milliseconds of all kernels, as if each began when the one before ended."""
        return sum(kernel.bounds.longest for kernel in self.kernels) / 1e3

    @property
    def launch_ms(self) -> float:
        """Milliseconds between the kernels."""
        return sum(kernel.launch_us for kernel in self.kernels) / 1e3

    @property
    def milliseconds(self) -> float:
        """Predicted time of the forward pass, copies from and to the host left out."""
        return self.kernel_ms + self.launch_ms

    @property
    def measured_by_paper(self) -> dict[str, float]:
        """Milliseconds that the paper measured at this size, by GPU; empty where it has no such size."""
        return {gpu: times[self.size] for gpu, times in PAPER.items() if self.size in times}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {
            "prediction": True,
            "target": self.target,
            "size": str(self.size),
            "dtype": self.dtype,
            "milliseconds": self.milliseconds,
            "kernel_ms": self.kernel_ms,
            "launch_ms": self.launch_ms,
            "measured_by_paper_ms": self.measured_by_paper,
            "chip": asdict(self.chip),
            "source": self.source,
            "kernels": [kernel.to_dict() for kernel in self.kernels],
        }


def predict(workload: Workload) -> Prediction:
    """Compile a network for a GPU and predict the time of its forward pass; no GPU is needed.

    Raises
    ------
    UserError
        When the target has no GPU or no peak figures, the CUDA compiler is missing, or the weights do not serve.
    """
    target = workload.target
    figures = figures_of(target)
    kernels = predict_compiled(compile_untuned(workload), figures.chip)
    return Prediction(target.name, workload.input_size, figures.chip, kernels, figures.source, workload.dtype)


def predict_compiled(compiled: Compiled, chip: Chip) -> tuple[KernelPrediction, ...]:
    """Return the launches of a compiled network with what binds each; it raises what `predict` does."""
    made = assembled(compiled.device_code, chip.arch, find_cuda_tools())
    codes = read_machine_code(made.cubins, chip.arch)
    resources = {each.name: each for each in made.resources}
    predictions = []
    for launch in compiled.launches:
        entry, geometry = f"{launch.kernel}_kernel", geometry_of(compiled.functions[launch.kernel])
        code = codes[entry]
        predictions.append(
            KernelPrediction(
                kernel=launch.kernel,
                layer=launch.layers[-1] if launch.layers else "",
                flops=launch.flops,
                geometry=geometry,
                registers=resources[entry].registers,
                bytes_per_fma=max((loop.bytes_per_fma for loop in code.hot_loops), default=None),
                bounds=kernel_bounds(code, resources[entry], geometry, chip),
                launch_us=chip.multiprocessor.launch_us,
            )
        )
    return tuple(predictions)
