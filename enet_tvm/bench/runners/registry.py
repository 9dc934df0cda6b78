"""The runners by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from enet_tvm.bench.runners.base import Runner, Workload
from enet_tvm.errors import UserError


@dataclass(frozen=True)
class LazyRunner:
    """A runner whose module is imported when it is needed.

    Attributes
    ----------
    module, function : str
        Of this package, and what in it takes a `Workload` and returns the runner.
    """

    module: str
    function: str

    def __call__(self, workload: Workload) -> Runner:
        """Return the runner, ready to run."""
        runner: Runner = getattr(self._imported(), self.function)(workload)
        return runner

    def load_libraries(self) -> None:
        """Import what the runner needs, and nothing of the network: memory is counted from there."""
        load = getattr(self._imported(), "load_libraries", None)
        if load is not None:
            load()

    def _imported(self) -> object:
        return importlib.import_module(f"enet_tvm.bench.runners.{self.module}")


RUNNERS: dict[str, Callable[[Workload], Runner]] = {
    # Ours first: its thread pool must be the first of TVM's in the process.
    "tvm": LazyRunner("tvm_local", "compiled_here"),
    "tvm-untuned": LazyRunner("tvm_local", "untuned"),
    "tvm-bfloat16": LazyRunner("tvm_local", "bfloat16"),
    "tvm-int8": LazyRunner("tvm_local", "int8"),
    "torch": LazyRunner("pytorch", "eager"),
    "torch-channels-last": LazyRunner("pytorch", "channels_last"),
    "torch-compile": LazyRunner("pytorch", "compiled"),
    "onnxruntime": LazyRunner("onnx_runtimes", "OnnxRuntimeRunner"),
    "openvino": LazyRunner("onnx_runtimes", "OpenVinoRunner"),
    "tvm-rpc": LazyRunner("tvm_rpc", "on_device"),
}
"""All of them, the one on a device behind a tracker last."""

VARIANTS = ("tvm-untuned", "tvm-bfloat16", "tvm-int8")
"""Other ways of compiling ours: each takes as long as the first, so they run when they are asked for."""

ON_DEVICE = "tvm-rpc"
"""The runner that needs a tracker; it is left out where none is given."""


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
