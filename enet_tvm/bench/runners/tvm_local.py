"""Our own compiled network, on this machine, as a runner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import MANIFEST_NAME, Manifest, read_manifest
from enet_tvm.bench.runners.base import Runner, Workload
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.libraries import load_runtime
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
        self._directory = artifact
        target = self.segmenter.manifest.target
        self.description = f"enet-tvm for {target.name} ({target.mcpu}), {self.segmenter.manifest.kernel_count} kernels"

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        return self.segmenter.forward(x)

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the library and the manifest."""
        return self._directory / self.segmenter.manifest.library, self._directory / MANIFEST_NAME

    def close(self) -> None:
        """End the segmenter's threads."""
        self.segmenter.close()


def load_libraries() -> None:
    """Load TVM's runtime, without its compiler."""
    load_runtime()


def compiled_here(workload: Workload) -> Runner:
    """Return the workload's artifact, or else the network compiled for the workload's target."""
    return TvmRunner(artifact_of(workload), workload.threads)


def artifact_of(workload: Workload) -> Path:
    """Return the directory of the workload's artifact; without one, compile it first, once.

    Raises
    ------
    UserError
        When the given artifact is of another size or of other weights, or the network cannot be compiled.
    """
    if workload.artifact is not None:
        _check(read_manifest(workload.artifact), workload)
        return workload.artifact
    artifact = workload.directory / f"{workload.target.replace('/', '-')}-{workload.size}"
    if not artifact.is_dir():
        # Imported here: a process that only runs the artifact is to hold no compiler.
        from enet_tvm.compiler import CompileRequest, compile_artifact

        target = load_target(workload.target)
        compile_artifact(CompileRequest(workload.weights, workload.size, target, command="enet-tvm bench"), artifact)
    return artifact


def _check(manifest: Manifest, workload: Workload) -> None:
    if manifest.input.shape != workload.input_shape:
        batch, _, height, width = manifest.input.shape
        raise UserError(
            f"{workload.artifact} takes {batch} pictures of {width}x{height} at once, and 1 of {workload.size} is to be timed; "
            "leave --size out, or compile it again"
        )
    if manifest.hashes.weights != sha256(workload.weights):
        raise UserError(
            f"{workload.artifact} was not compiled from {workload.weights}; give --weights with the file that it was made from"
        )
