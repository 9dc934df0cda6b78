"""The interface of runners, and the case that they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.compiler.workload import Workload
from enet_tvm.size import Size, parse_size
from enet_tvm.targets import TargetSpec


class RunnerMissingError(Exception):
    """A runtime that is not available here, which is reported beside the results. Its message is one sentence."""


@dataclass(frozen=True)
class Case:
    """A workload that runners run beside each other, and where.

    Attributes
    ----------
    workload : Workload
        Weights file, input size, target of our runners, and number of threads that each runner may use.
    directory : Path
        Directory for the files that runners make: artifacts, ONNX files.
    tracker : str or None
        HOST:PORT of the RPC tracker behind which the device waits; only the runner over RPC needs it.
    key : str or None
        Key of the device at the tracker; None for the target's.
    artifact : Path or None
        Artifact that our runners load, written by ``enet-tvm compile``; None to compile it.
    tuned_for : int or None
        Number of threads that our network is compiled for, by which its tuning log is chosen; None for the workload's.
    data : str or None
        Data set on whose training pictures int8 of other runtimes is calibrated; None for the drawn street. Ours takes the
        ranges that lie beside the weights.
    """

    workload: Workload
    directory: Path
    tracker: str | None = None
    key: str | None = None
    artifact: Path | None = None
    tuned_for: int | None = None
    data: str | None = None

    @property
    def weights(self) -> Path:
        """Weights file, which all runners load the network from."""
        if self.workload.weights_file is None:
            raise ValueError("runners load a network from its file, and this one is in memory")
        return self.workload.weights_file

    @property
    def size(self) -> Size:
        """Width and height of the input."""
        return self.workload.input_size

    @property
    def target(self) -> TargetSpec:
        """Target that our runners compile for."""
        return self.workload.target

    @property
    def threads(self) -> int:
        """Number of threads that each runner may use."""
        return self.workload.thread_count

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input: N, C, H, W, with one picture and three channels."""
        return (1, 3, self.size.height, self.size.width)

    def to_dict(self) -> dict[str, Any]:
        """Return the case as JSON takes it."""
        workload = {"weights": str(self.weights), "size": str(self.size), "threads": self.threads}
        return {
            **{key: str(value) if isinstance(value, Path) else value for key, value in vars(self).items()},
            "workload": {**workload, "target": self.target.model_dump(mode="json")},
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the case that `to_dict` was called on."""
        given = content["workload"]
        target = TargetSpec.model_validate(given["target"])
        workload = Workload(Path(given["weights"]), parse_size(given["size"]), target, given["threads"])
        paths = {key: Path(content[key]) for key in ("directory", "artifact") if content[key] is not None}
        return cls(**{**content, **paths, "workload": workload})


@dataclass(frozen=True)
class PassTimes:
    """Duration of one call, where computing and moving data can be told apart.

    Attributes
    ----------
    device : float
        Seconds of computing on the device.
    transfer : float
        Seconds of moving input and output between host and device.
    """

    device: float
    transfer: float = 0.0


class Runner(ABC):
    """One network in one runtime.

    Attributes
    ----------
    description : str
        Name of the runtime with its version, for the report.
    precision : {"float32", "float16", "bfloat16", "int8"}
        Data type that it computes in.
    remote : bool
        Whether it computes on another machine than this one. Then that machine's sensors are read, and it is never opened
        a second time beside itself: devices are lent to one user at a time.
    on_gpu : bool
        Whether it computes on this machine's GPU, whose driver is then asked for energy, clocks and temperature.
    threads : int or None
        Number of threads that it uses where that may differ from the case's: a device may have fewer processors.
    """

    description: str
    precision: Precision = "float32"
    remote: bool = False
    on_gpu: bool = False
    threads: int | None = None

    @abstractmethod
    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (N x classes x H x W float32) of a normalised input (N x 3 x H x W float32)."""

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass, device and transfer apart; None where there is no transfer."""
        return None

    def files(self) -> SystemFiles | None:
        """Return the kernel's files of the machine it computes on; None when they cannot be read.

        Clocks, temperatures, power and the machine's name come from them.
        """
        return SystemFiles()

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the files on this machine that it loads the network from."""
        return ()

    def peak_memory(self) -> int | None:
        """Return the most memory, in bytes, that it took on another machine; None when it is not known there."""
        return None

    def close(self) -> None:  # noqa: B027 - most runners hold nothing that must be given back
        """Give back threads and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
