"""TensorRT on this machine's GPU as a runner, its engine built of the ONNX file; PyTorch holds its tensors and times it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enet_tvm.bench.runners.base import Case, RunnerMissingError
from enet_tvm.bench.runners.onnx_runtimes import exported
from enet_tvm.bench.runners.pytorch_cuda import PyTorchCudaRunner, require_cuda


class TensorRtRunner(PyTorchCudaRunner):
    """An engine of TensorRT in float32 without TF32, launched as one CUDA graph.

    Parameters
    ----------
    tensorrt : module
        The package tensorrt.
    case : Case
        Case that is run.
    device : str
        PyTorch's name of the GPU; "cpu" holds the tensors on the processor, and captures no graph.

    Raises
    ------
    RunnerMissingError
        When TensorRT cannot build the engine.
    """

    def __init__(self, tensorrt: Any, case: Case, device: str = "cuda") -> None:
        self._file = exported(case)
        self._engine = _engine(tensorrt, self._file)
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        (source, target) = sorted(names, key=lambda name: self._engine.get_tensor_mode(name) != tensorrt.TensorIOMode.INPUT)
        self._input, self._output = (
            torch.zeros(tuple(self._engine.get_tensor_shape(name)), dtype=torch.float32, device=device)
            for name in (source, target)
        )
        for name, tensor in ((source, self._input), (target, self._output)):
            self._context.set_tensor_address(name, tensor.data_ptr())
        self._graph = self._captured() if device != "cpu" else None
        super().__init__(f"TensorRT {tensorrt.__version__}, one CUDA graph", self._launch, case, device)

    def _captured(self) -> torch.cuda.CUDAGraph:
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        self._context.execute_async_v3(stream.cuda_stream)  # what it does the first time cannot be captured
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            self._context.execute_async_v3(stream.cuda_stream)
        return graph

    def _launch(self, x: Tensor) -> Tensor:
        self._input.copy_(x)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._context.execute_async_v3(0)
        return self._output

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the ONNX file."""
        return (self._file,)


def on_gpu(case: Case) -> TensorRtRunner:
    """Return TensorRT on the GPU.

    Raises
    ------
    RunnerMissingError
        When tensorrt or PyTorch's CUDA is missing, there is no GPU, or TensorRT cannot build the engine.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise RunnerMissingError("tensorrt is not installed; run: pip install tensorrt") from error
    require_cuda()
    return TensorRtRunner(tensorrt, case)


def _engine(tensorrt: Any, file: Path) -> Any:
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(file.read_bytes()):
        raise RunnerMissingError(f"TensorRT does not read {file.name} ({parser.get_error(0)}); take another release of it")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RunnerMissingError("TensorRT builds no engine for this machine's GPU; take a release that knows it")
    return tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
