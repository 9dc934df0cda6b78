"""TensorRT, as far as it can be tried without a GPU: that its absence is said, and its calls, of a stand-in that computes."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.tensorrt import TensorRtRunner


def test_it_is_missing_and_says_what_to_do(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RunnerMissingError, match=r"^tensorrt is not installed; run: pip install tensorrt$"):
        open_runner("tensorrt", case)


def test_without_a_gpu(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RunnerMissingError, match="is built without CUDA"):
        open_runner("tensorrt", case)


class Network:
    """What the stand-in makes of an ONNX file: ONNX Runtime's session, called with addresses, as TensorRT's engines are."""

    def __init__(self, content: bytes) -> None:
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.io = {each.name: each for each in (*self.session.get_outputs(), *self.session.get_inputs())}
        self.num_io_tensors = len(self.io)
        self.addresses: dict[str, int] = {}
        self.set_tensor_address = self.addresses.__setitem__

    def get_tensor_name(self, number: int) -> str:
        return list(self.io)[number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == self.session.get_inputs()[0].name else "output"

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.io[name].shape

    def create_execution_context(self) -> Network:
        return self

    def _array(self, name: str) -> np.ndarray:
        shape = self.io[name].shape
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.frombuffer(memory, np.float32).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        target, source = self.io
        self._array(target)[...] = self.session.run(None, {source: self._array(source)})[0]
        return True


def stand_in(*, reads: bool = True, builds: bool = True) -> tuple[Any, list[str]]:
    """Return a module with what is called of tensorrt, and the flags that were cleared."""
    made: list[bytes] = []
    cleared: list[str] = []
    parser = SimpleNamespace(parse=lambda content: made.append(content) or reads, get_error=lambda number: "an operator")
    builder = SimpleNamespace(
        create_network=lambda flags: "network",
        create_builder_config=lambda: SimpleNamespace(clear_flag=cleared.append),
        build_serialized_network=lambda network, config: made[0] if builds else None,
    )
    module = SimpleNamespace(
        __version__="10",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        Builder=lambda logger: builder,
        OnnxParser=lambda network, logger: parser,
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        TensorIOMode=SimpleNamespace(INPUT="input"),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=Network),
    )
    return module, cleared


def test_a_pass(case, small_network):
    tensorrt, cleared = stand_in()
    runner = TensorRtRunner(tensorrt, case, device="cpu")
    assert cleared == ["TF32"]
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal(case.input_shape, np.float32)
        with torch.inference_mode():
            expected = small_network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-5)
    assert runner.last_pass().device > 0
    assert "TensorRT 10" in runner.description


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"), [({"reads": False}, r"does not read .*\(an operator\)"), ({"builds": False}, "no engine")]
)
def test_a_network_that_it_cannot_take(case, small_network, fault, words):
    with pytest.raises(RunnerMissingError, match=words):
        TensorRtRunner(stand_in(**fault)[0], case, device="cpu")
