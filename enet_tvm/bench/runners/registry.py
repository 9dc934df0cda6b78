"""The runners by name; each is imported when it is asked for.

Other forms of peers are not here. ncnn that is told to use float16 returns its logits of float32 on x86, bit for bit, and MNN's
low precision is float32 there too. ncnn's packages bring no tool that makes int8.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from enet_tvm.bench.runners.base import Case, Runner
from enet_tvm.errors import UserError

Place = Literal["cpu", "gpu", "tracker"]
"""Where a network runs: on this machine's processor or GPU, or on a device behind an RPC tracker."""


@dataclass(frozen=True)
class LazyRunner:
    """A runner whose module is imported when it is needed.

    Attributes
    ----------
    module, function : str
        Name of the module in this package, and of the callable in it that takes a `Case` and returns the runner.
    places : tuple of {"cpu", "gpu", "tracker"}
        Places that it runs at.
    by_default : bool
        Whether it runs there when no runner is named. Other ways of compiling ours take as long as the first.
    packages : tuple of str
        Distributions that it depends on, whose versions are reported.
    """

    module: str
    function: str
    places: tuple[Place, ...]
    by_default: bool = True
    packages: tuple[str, ...] = ()

    def __call__(self, case: Case) -> Runner:
        """Return the runner, ready to run."""
        runner: Runner = getattr(self._imported(), self.function)(case)
        return runner

    def load_libraries(self) -> None:
        """Import what the runner needs, and nothing of the network: memory is counted from there."""
        load = getattr(self._imported(), "load_libraries", None)
        if load is not None:
            load()

    def _imported(self) -> object:
        return importlib.import_module(f"enet_tvm.bench.runners.{self.module}")


_HERE: tuple[Place, ...] = ("cpu", "gpu")

RUNNERS: dict[str, Callable[[Case], Runner]] = {
    # Ours first: its thread pool must be the first of TVM's in the process.
    "tvm": LazyRunner("tvm_local", "compiled_here", _HERE),
    "tvm-untuned": LazyRunner("tvm_local", "untuned", _HERE, by_default=False),
    "tvm-float16": LazyRunner("tvm_local", "float16", _HERE, by_default=False),
    "tvm-bfloat16": LazyRunner("tvm_local", "bfloat16", _HERE, by_default=False),
    "tvm-int8": LazyRunner("tvm_local", "int8", _HERE, by_default=False),
    "torch": LazyRunner("pytorch", "eager", ("cpu",), packages=("torch",)),
    "torch-channels-last": LazyRunner("pytorch", "channels_last", ("cpu",), packages=("torch",)),
    "torch-compile": LazyRunner("pytorch", "compiled", ("cpu",), packages=("torch",)),
    "torch-compile-bfloat16": LazyRunner("pytorch", "compiled_bfloat16", ("cpu",), by_default=False, packages=("torch",)),
    "torch-cuda": LazyRunner("pytorch_cuda", "channels_last", ("gpu",), packages=("torch",)),
    "torch-cuda-compile": LazyRunner("pytorch_cuda", "compiled", ("gpu",), packages=("torch", "triton")),
    "onnxruntime-cuda": LazyRunner("onnx_runtime_cuda", "OnnxRuntimeCudaRunner", ("gpu",), packages=("onnxruntime-gpu",)),
    "tensorrt": LazyRunner("tensorrt", "on_gpu", ("gpu",), packages=("tensorrt",)),
    "onnxruntime": LazyRunner("onnx_runtimes", "OnnxRuntimeRunner", ("cpu",), packages=("onnx", "onnxruntime")),
    "onnxruntime-int8": LazyRunner(
        "onnx_runtimes", "int8_onnx_runtime", ("cpu",), by_default=False, packages=("onnx", "onnxruntime")
    ),
    "openvino": LazyRunner("onnx_runtimes", "OpenVinoRunner", ("cpu",), packages=("openvino",)),
    "openvino-float16": LazyRunner("onnx_runtimes", "float16_openvino", ("cpu",), by_default=False, packages=("openvino",)),
    "openvino-bfloat16": LazyRunner("onnx_runtimes", "bfloat16_openvino", ("cpu",), by_default=False, packages=("openvino",)),
    "openvino-int8": LazyRunner("onnx_runtimes", "int8_openvino", ("cpu",), by_default=False, packages=("openvino", "nncf")),
    "ncnn": LazyRunner("ncnn", "float32", ("cpu",), packages=("ncnn", "pnnx")),
    "ncnn-bfloat16": LazyRunner("ncnn", "bfloat16", ("cpu",), by_default=False, packages=("ncnn", "pnnx")),
    "mnn": LazyRunner("mnn", "MnnRunner", ("cpu",), packages=("MNN",)),
    "mnn-int8": LazyRunner("mnn", "int8", ("cpu",), by_default=False, packages=("MNN",)),
    "litert": LazyRunner("litert", "LiteRtRunner", ("cpu",), packages=("ai-edge-litert",)),
    "litert-float16": LazyRunner("litert", "float16", ("cpu",), by_default=False, packages=("ai-edge-litert",)),
    "litert-int8": LazyRunner("litert", "int8", ("cpu",), by_default=False, packages=("ai-edge-litert", "ai-edge-quantizer")),
    "executorch": LazyRunner("executorch", "ExecuTorchRunner", ("cpu",), packages=("executorch",)),
    "executorch-int8": LazyRunner("executorch", "int8", ("cpu",), by_default=False, packages=("executorch",)),
    "tvm-rpc": LazyRunner("tvm_rpc", "on_device", ("tracker",)),
}
"""All runners by name; a new one is a module of this package and a line here."""


def runners_at(place: Place, *, by_default: bool = False) -> list[str]:
    """Return the names of the runners of a place: all of them, or those that run there when no runner is named."""
    lazy = {name: runner for name, runner in RUNNERS.items() if isinstance(runner, LazyRunner)}
    return [name for name, runner in lazy.items() if place in runner.places and (runner.by_default or not by_default)]


def packages() -> list[str]:
    """Return the distributions that the runners depend on, in the order of the runners."""
    lazy = [runner for runner in RUNNERS.values() if isinstance(runner, LazyRunner)]
    return list(dict.fromkeys(package for runner in lazy for package in runner.packages))


def open_runner(name: str, case: Case) -> Runner:
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
    return RUNNERS[name](case)
