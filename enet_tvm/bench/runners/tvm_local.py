"""Our own compiled network, on this machine, as a runner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.bench.runners.base import Runner, Workload
from enet_tvm.compiler import CompileRequest, compile_artifact
from enet_tvm.runtime import Segmenter
from enet_tvm.targets import load_target


class TvmRunner(Runner):
    """An artifact, loaded.

    Parameters
    ----------
    artifact : Path
        Written by ``enet-tvm compile``.
    threads : int
        Threads of a forward pass.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        self.segmenter = Segmenter.load(artifact, threads)
        target = self.segmenter.manifest.target
        self.description = f"enet-tvm for {target.name} ({target.mcpu}), {self.segmenter.manifest.kernel_count} kernels"

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        return self.segmenter.forward(x)

    def close(self) -> None:
        """End the segmenter's threads."""
        self.segmenter.close()


def compiled_here(workload: Workload) -> Runner:
    """Return the network compiled for the workload's target, untuned."""
    artifact = workload.directory / f"{workload.target}-{workload.size}"
    if not artifact.is_dir():
        target = load_target(workload.target)
        compile_artifact(CompileRequest(workload.weights, workload.size, target, command="enet-tvm bench"), artifact)
    return TvmRunner(artifact, workload.threads)
