"""The runners by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from enet_tvm.bench.runners.base import Runner, Workload
from enet_tvm.errors import UserError


def _tvm(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.tvm_local import compiled_here

    return compiled_here(workload)


def _eager(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.pytorch import eager

    return eager(workload)


def _channels_last(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.pytorch import channels_last

    return channels_last(workload)


def _compiled(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.pytorch import compiled

    return compiled(workload)


def _onnxruntime(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.onnx_runtimes import OnnxRuntimeRunner

    return OnnxRuntimeRunner(workload)


def _openvino(workload: Workload) -> Runner:
    from enet_tvm.bench.runners.onnx_runtimes import OpenVinoRunner

    return OpenVinoRunner(workload)


RUNNERS: dict[str, Callable[[Workload], Runner]] = {
    # Ours first: its thread pool must be the first of TVM's in the process.
    "tvm": _tvm,
    "torch": _eager,
    "torch-channels-last": _channels_last,
    "torch-compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def open_runner(name: str, workload: Workload) -> Runner:
    """Return a runner, ready to run.

    Raises
    ------
    UserError
        When there is no runner of that name.
    RunnerMissingError
        When its runtime is not here.
    """
    if name not in RUNNERS:
        raise UserError(f"there is no runner '{name}'; known are {', '.join(RUNNERS)}")
    return RUNNERS[name](workload)
