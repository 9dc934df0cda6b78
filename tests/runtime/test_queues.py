"""Queues and clocks: the processor's by themselves, a GPU's by what its driver, which records, was called for."""

from __future__ import annotations

import time

import numpy as np
import pytest
from recording_driver import RecordingDriver

from enet_tvm.runtime.libraries import load_runtime
from enet_tvm.runtime.queues import HostClock, HostQueue


def test_the_processors_clock():
    clock = HostClock()
    start = clock.mark()
    time.sleep(0.01)
    clock.wait()
    assert 0.01 <= clock.seconds(start, clock.mark()) < 5


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_processor_in_a_gpus_place(dtype: str):
    queue = HostQueue(load_runtime())
    there, back = queue.allocate((2, 3, 5), dtype), queue.allocate_host((2, 3, 5), dtype)
    source = queue.allocate_host((2, 3, 5), dtype)
    np.from_dlpack(source)[...] = np.arange(30).reshape(2, 3, 5)
    with queue.current():
        queue.copy(source, there)
        queue.copy(there, back)
    queue.wait()
    np.testing.assert_array_equal(np.from_dlpack(back), np.arange(30).reshape(2, 3, 5))
    queue.close()


def test_a_gpus_copies_go_through_its_own_stream(recording: RecordingDriver):
    """TVM's go through the default one, for which a stream of this kind does not wait."""
    got = recording.run("""
        from enet_tvm.runtime.gpu import load_cuda
        from enet_tvm.runtime.libraries import load_runtime
        from enet_tvm.runtime.queues import CudaQueue
        ffi = load_runtime()
        load_cuda(ffi)
        queue = CudaQueue(ffi)
        made = calls()
        there, here = queue.allocate((2, 3), "float32"), queue.allocate_host((2, 3), "float32")
        reserved = calls()
        start = queue.mark()
        queue.copy(here, there)
        queue.copy(there, here)
        end = queue.mark()
        queue.wait()
        seconds = queue.seconds(start, end)
        used = [call for call in calls() if not call.startswith(("cuCtx", "cuEventCreate"))]
        driver.fake_fail(b"cuMemcpyHtoDAsync_v2", 700)
        try:
            queue.copy(here, there)
        except RuntimeError as error:
            said = str(error)
        calls()
        queue.close()
        queue.close()
        answer(made=made, reserved=reserved, used=used, seconds=seconds, said=said, closed=calls())
    """)
    assert "cuStreamCreate(1)" in got["made"]  # CU_STREAM_NON_BLOCKING
    assert "cuMemAllocHost_v2(24)" in got["reserved"]
    streams = {call.rpartition(", ")[2].rstrip(")") for call in got["used"] if "Record" in call or "Memcpy" in call}
    assert len(streams) == 1
    assert "(nil)" not in streams
    assert [call.partition("(")[0] for call in got["used"]] == [
        "cuEventRecord",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuEventRecord",
        "cuStreamSynchronize",
        "cuEventElapsedTime",
    ]
    assert got["seconds"] == pytest.approx(1.5e-3)
    assert got["said"].startswith("CUDA says: ")
    assert "(error 700)" in got["said"]
    assert [call.partition("(")[0] for call in got["closed"] if "Stream" in call] == ["cuStreamDestroy_v2"]
