"""The workload: a network at an input size, and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.artifact import Precision
from enet_tvm.size import DEFAULT_SIZE, Size
from enet_tvm.targets import TargetSpec

if TYPE_CHECKING:
    # A process that only times an artifact reads a workload too, and is to hold no PyTorch.
    from enet_tvm.networks.weights import NetworkInMemory


@dataclass(frozen=True)
class Workload:
    """A network at an input size, batch and data type, on the threads of a target: what is compiled, tuned and timed.

    Attributes
    ----------
    weights : Path or NetworkInMemory
        A safetensors file of `enet_tvm.networks.save_network`, an ONNX file of ``enet-tvm export``, or a network in memory
        with its information, whose `NetworkInMemory.sha256` then is the hash of the weights in the manifest.
    size : Size or None
        Width and height of the input in pixels; None for those of the ONNX file, else the target's, else 640x360.
    target : TargetSpec
        Target to compile for.
    threads : int or None
        Threads that the network is to run on, by which a tuning log is chosen; None for the target's cores.
    batch : int
        Pictures that go through the network at once; an ONNX file has its own.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Type of the weights and tensors between the network's input and its output.
    calibration : Path or None
        File of ``enet-tvm calibrate``, for int8 alone; None for the one beside the weights.
    """

    weights: Path | NetworkInMemory
    size: Size | None
    target: TargetSpec
    threads: int | None = None
    batch: int = 1
    dtype: Precision = "float32"
    calibration: Path | None = None

    @property
    def weights_file(self) -> Path | None:
        """File of the weights; None for a network in memory."""
        return self.weights if isinstance(self.weights, Path) else None

    @property
    def input_size(self) -> Size:
        """Width and height of the input, unless an ONNX file has its own."""
        return self.size or self.target.size or DEFAULT_SIZE

    @property
    def thread_count(self) -> int:
        """Number of threads that the network is to run on."""
        return self.threads or self.target.cores
