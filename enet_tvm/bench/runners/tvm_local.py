"""Our own compiled network, on this machine, as a runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import MANIFEST_NAME, Manifest, read_manifest
from enet_tvm.bench.runners.base import PassTimes, Precision, Runner, RunnerMissingError, Workload
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.libraries import load_runtime
from enet_tvm.targets import load_target


class TvmRunner(Runner):
    """An artifact loaded on this machine.

    Parameters
    ----------
    artifact : Path
        Directory that ``enet-tvm compile`` wrote.
    threads : int
        Number of threads of a forward pass.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        self.segmenter = Segmenter.load(artifact, threads, adaptive=False)
        self.precision = self.segmenter.manifest.dtype
        self._directory = artifact
        self.description = describe(self.segmenter.manifest)
        self.on_gpu = self.segmenter.manifest.target.device != "cpu"
        self._last: PassTimes | None = None

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        if not self.on_gpu:
            return self.segmenter.forward(x)
        logits, device, transfer = self.segmenter.forward_timed(x)
        self._last = PassTimes(device, transfer)
        return logits

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass on a GPU, and of the transfer of its data."""
        return self._last

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
    """Return the workload's artifact, or else the network as ``enet-tvm compile`` makes it: tuned where a log fits."""
    return TvmRunner(artifact_of(workload), workload.threads)


def untuned(workload: Workload) -> Runner:
    """Return the network compiled without tuning logs.

    Raises
    ------
    RunnerMissingError
        When `compiled_here` gives the same, because no tuning log fits.
    """
    if read_manifest(artifact_of(workload)).tuning is None:
        raise RunnerMissingError("it would be the same as tvm, which no tuning log fits; make one with 'enet-tvm tune'")
    return TvmRunner(artifact_of(replace(workload, artifact=None), untuned=True), workload.threads)


def bfloat16(workload: Workload) -> Runner:
    """Return the network computing in bfloat16.

    Raises
    ------
    RunnerMissingError
        When it cannot be compiled so, or the target cannot compute so.
    """
    return _in_precision(workload, "bfloat16")


def int8(workload: Workload) -> Runner:
    """Return the network computing in 8-bit integers.

    Raises
    ------
    RunnerMissingError
        When it cannot be compiled so, or the target cannot compute so.
    """
    return _in_precision(workload, "int8")


def _in_precision(workload: Workload, dtype: Precision) -> Runner:
    try:
        artifact = artifact_of(replace(workload, artifact=None), dtype=dtype)
    except UserError as error:
        raise RunnerMissingError(str(error)) from error
    return TvmRunner(artifact, workload.threads)


def artifact_of(workload: Workload, **options: Any) -> Path:
    """Return the directory of the workload's artifact; without one, compile it first, once.

    Parameters
    ----------
    workload : Workload
        Workload that the artifact is for, on this machine or on a device.
    **options
        Fields of `enet_tvm.compiler.compile.CompileRequest` that the workload does not set.

    Raises
    ------
    UserError
        When the given artifact is of another size or of other weights, or returns labels, or the network cannot be compiled.
    """
    if workload.artifact is not None:
        _check(read_manifest(workload.artifact), workload)
        return workload.artifact
    threads = workload.tuned_for or workload.threads
    parts = (Path(workload.target).stem, workload.size, f"{threads}threads", *options, *options.values())
    artifact = workload.directory / "-".join(map(str, parts))
    if not artifact.is_dir():
        # Imported here: a process that only runs the artifact is to hold no compiler.
        from enet_tvm.compiler.compile import CompileRequest, compile_artifact

        if unknown := options.keys() - CompileRequest.__dataclass_fields__.keys():
            raise UserError(f"'enet-tvm compile' knows no {', '.join(unknown)}; take another runner")
        request = CompileRequest(
            workload.weights,
            workload.size,
            load_target(workload.target),
            command="enet-tvm bench",
            threads=threads,
            **options,
        )
        compile_artifact(request, artifact)
    return artifact


def describe(manifest: Manifest) -> str:
    """Return in words what an artifact is."""
    target, tuning = manifest.target, manifest.tuning
    tuned = f"{tuning.kernels} of {tuning.of} kinds tuned by {tuning.log}" if tuning is not None else "untuned"
    return f"enet-tvm {manifest.versions.enet_tvm} for {target.name} ({target.mcpu}), {manifest.kernel_count} kernels, {tuned}"


def _check(manifest: Manifest, workload: Workload) -> None:
    if manifest.output.labels:
        raise UserError(
            f"{workload.artifact} returns labels, and runners are compared by their logits; compile it with --output logits"
        )
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
