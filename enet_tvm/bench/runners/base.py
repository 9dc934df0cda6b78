"""What every runner offers, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from enet_tvm.size import Size


class RunnerMissingError(Exception):
    """A runtime that is not here: reported beside the results, no failure. Its message is one sentence."""


@dataclass(frozen=True)
class Workload:
    """What runners run.

    Attributes
    ----------
    weights : Path
        Weights file.
    size : Size
        Of the input.
    threads : int
        Threads that each runner may use.
    directory : Path
        For what runners make on the way: artifacts, ONNX files.
    target : str
        What ours compiles for.
    """

    weights: Path
    size: Size
    threads: int
    directory: Path
    target: str = "native"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        return (1, 3, self.size.height, self.size.width)


class Runner(ABC):
    """One network in one runtime."""

    description: str
    """What it is, with the version: for the report."""

    @abstractmethod
    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (N x classes x H x W float32) of a normalised input (N x 3 x H x W float32)."""

    def close(self) -> None:  # noqa: B027 - most runners hold nothing that must be given back
        """Give back threads and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
