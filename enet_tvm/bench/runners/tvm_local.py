"""Our own compiled network, on this machine, as a runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import MANIFEST_NAME, Manifest, Precision, read_manifest
from enet_tvm.bench.runners.base import Case, PassTimes, Runner, RunnerMissingError
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.libraries import load_runtime


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


def compiled_here(case: Case) -> Runner:
    """Return the case's artifact, or else the network as ``enet-tvm compile`` makes it: tuned where a log fits."""
    return TvmRunner(artifact_of(case), case.threads)


def untuned(case: Case) -> Runner:
    """Return the network compiled without tuning logs.

    Raises
    ------
    RunnerMissingError
        When `compiled_here` gives the same, because no tuning log fits.
    """
    if read_manifest(artifact_of(case)).tuning is None:
        raise RunnerMissingError("it would be the same as tvm, which no tuning log fits; make one with 'enet-tvm tune'")
    return TvmRunner(artifact_of(replace(case, artifact=None), untuned=True), case.threads)


def float16(case: Case) -> Runner:
    """Return the network computing in float16.

    Raises
    ------
    RunnerMissingError
        When it cannot be compiled so, or the target cannot compute so.
    """
    return _in_precision(case, "float16")


def bfloat16(case: Case) -> Runner:
    """Return the network computing in bfloat16.

    Raises
    ------
    RunnerMissingError
        When it cannot be compiled so, or the target cannot compute so.
    """
    return _in_precision(case, "bfloat16")


def int8(case: Case) -> Runner:
    """Return the network computing in 8-bit integers.

    Raises
    ------
    RunnerMissingError
        When it cannot be compiled so, or the target cannot compute so.
    """
    return _in_precision(case, "int8")


def _in_precision(case: Case, dtype: Precision) -> Runner:
    try:
        artifact = artifact_of(replace(case, artifact=None), dtype)
    except UserError as error:
        raise RunnerMissingError(str(error)) from error
    return TvmRunner(artifact, case.threads)


def artifact_of(case: Case, dtype: Precision = "float32", *, untuned: bool = False) -> Path:
    """Return the directory of the case's artifact; without one, compile it first, once.

    Parameters
    ----------
    case : Case
        Case that the artifact is for, on this machine or on a device.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Data type to compile for.
    untuned : bool
        Whether to leave tuning logs alone.

    Raises
    ------
    UserError
        When the given artifact is of another size or of other weights, or returns labels, or the network cannot be compiled.
    """
    if case.artifact is not None:
        _check(read_manifest(case.artifact), case)
        return case.artifact
    workload = replace(case.workload, threads=case.tuned_for or case.threads, dtype=dtype)
    parts = (workload.target.name, case.size, f"{workload.threads}threads", dtype, *(["untuned"] if untuned else []))
    artifact = case.directory / "-".join(map(str, parts))
    if not artifact.is_dir():
        # Imported here: a process that only runs the artifact is to hold no compiler.
        from enet_tvm.compiler.compile import CompileRequest, compile_artifact

        compile_artifact(CompileRequest(workload, command="enet-tvm bench", untuned=untuned), artifact)
    return artifact


def describe(manifest: Manifest) -> str:
    """Return in words what an artifact is."""
    target, tuning = manifest.target, manifest.tuning
    tuned = "untuned"
    if tuning is not None:
        how = "simulated" if tuning.simulated else "modelled" if tuning.modelled else "tuned"
        tuned = f"{tuning.kernels} of {tuning.of} kinds {how} by {tuning.log}"
    return f"enet-tvm {manifest.versions.enet_tvm} for {target.name} ({target.mcpu}), {manifest.kernel_count} kernels, {tuned}"


def _check(manifest: Manifest, case: Case) -> None:
    if manifest.output.labels:
        raise UserError(
            f"{case.artifact} returns labels, and runners are compared by their logits; compile it with --output logits"
        )
    if manifest.input.shape != case.input_shape:
        batch, _, height, width = manifest.input.shape
        raise UserError(
            f"{case.artifact} takes {batch} pictures of {width}x{height} at once, and 1 of {case.size} is to be timed; "
            "leave --size out, or compile it again"
        )
    if manifest.hashes.weights != sha256(case.weights):
        raise UserError(
            f"{case.artifact} was not compiled from {case.weights}; give --weights with the file that it was made from"
        )
