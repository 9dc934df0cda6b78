"""What of a GPU's runtime can be tried without a GPU: that its absence is said, and copies, on the processor as a device."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from enet_tvm.errors import UserError
from enet_tvm.runtime import gpu
from enet_tvm.runtime.engine import LocalEngine, aligned_empty
from enet_tvm.runtime.libraries import load_runtime


def driver(init: int, count: int) -> object:
    def get_count(place: object) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = count
        return 0

    return SimpleNamespace(cuInit=lambda _flags: init, cuDeviceGetCount=get_count)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (driver(100, 0), "finds no GPU (error 100)"),
        (driver(0, 0), "finds no GPU (error 0)"),
        (SimpleNamespace(), "has no CUDA driver"),  # A stand-in, as compiling makes one.
        (driver(0, 2), None),
    ],
)
def test_a_driver_and_a_gpu(monkeypatch: pytest.MonkeyPatch, found: object, words: str | None):
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda *_: found)
    why = gpu.missing_driver()
    assert why is None if words is None else words in str(why)


def test_the_architecture_of_the_gpu(monkeypatch: pytest.MonkeyPatch):
    def get(place: object, value: int) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = value
        return 0

    capability = {75: 8, 76: 7}
    found = driver(0, 1)
    found.cuDeviceGet = get  # type: ignore[attr-defined]
    found.cuDeviceGetAttribute = lambda place, number, device: get(place, capability[number])  # type: ignore[attr-defined]
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda *_: found)
    assert gpu.gpu_arch() == "sm_87"
    found.cuDeviceGetAttribute = lambda *_: 1  # type: ignore[attr-defined]
    assert gpu.gpu_arch() is None
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda *_: driver(100, 0))
    assert gpu.gpu_arch() is None


def missing(*_: object) -> None:
    raise OSError("cannot open shared object file")


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tiny_artifact):
    load_runtime()
    monkeypatch.setattr(gpu.ctypes, "CDLL", missing)
    with pytest.raises(
        UserError, match="this machine has no CUDA driver, and this network was compiled for one; run it on the"
    ):
        LocalEngine(tiny_artifact.directory / "enet.so", 1, "cuda")


def test_no_runtime_of_cuda_13(monkeypatch: pytest.MonkeyPatch):
    ffi = load_runtime()
    monkeypatch.setattr(gpu, "missing_driver", lambda: None)
    monkeypatch.setattr(gpu.ctypes, "CDLL", missing)
    with pytest.raises(UserError, match=r"libcudart.so.13 is missing .*; run: pip install 'nvidia-cuda-runtime==13.\*'"):
        gpu.load_cuda(ffi)


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch):
    """All loads, and TVM's runtime still sees no device."""
    monkeypatch.setattr(gpu, "missing_driver", lambda: None)
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda *_: None)
    ffi = SimpleNamespace(get_global_func=lambda name: lambda *_: 0)
    with pytest.raises(UserError, match="wants the NVIDIA driver 580 or later"):
        gpu.load_cuda(ffi)  # type: ignore[arg-type]


def test_there_and_back():
    ffi = load_runtime()
    memory = gpu.DeviceMemory(ffi, "cpu")
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    there = memory.put(ffi.from_dlpack(x))
    back = memory.get(there)
    np.testing.assert_array_equal(back, x)
    assert not np.shares_memory(back, np.from_dlpack(there))
    # The same memory again, and other memory for another shape.
    assert np.shares_memory(np.from_dlpack(memory.put(ffi.from_dlpack(x + 1))), np.from_dlpack(there))
    assert memory.put(ffi.from_dlpack(x[:1].copy())).shape == (1, 3, 4)


@pytest.mark.usefixtures("processor_as_gpu")
def test_an_engine_that_copies(tiny_artifact):
    """The engine's way to a GPU and back, the GPU being a processor: results, kernels' outputs and times."""
    engine = LocalEngine(tiny_artifact.directory / "enet.so", 1, "cuda")
    try:
        x = aligned_empty((1, 3, 16, 24))
        x[...] = np.random.default_rng(0).standard_normal(x.shape)
        np.testing.assert_allclose(engine.run(x), tiny_artifact.reference(x), rtol=1e-5, atol=1e-5)
        output, device, transfer = engine.run_timed(x)
        np.testing.assert_array_equal(output, engine.run(x))
        assert device > 0
        assert transfer > 0
        names = [name for name, _ in engine.run_instrumented(x)]
        assert len(names) == 2
        np.testing.assert_allclose(engine.run_instrumented(x)[-1][1], tiny_artifact.reference(x), rtol=1e-5, atol=1e-5)
        assert [[name for name, _ in kernels] for kernels in engine.time_kernels(x, 2)] == [names, names]
    finally:
        engine.close()
