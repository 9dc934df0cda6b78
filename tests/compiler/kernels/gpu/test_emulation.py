from __future__ import annotations

import pytest
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window


def test_no_thread_is_left():
    kernel = gpu_max_pool2d_with_window((1, 2, 8, 8))
    assert "thread_binding" in kernel.script()
    assert "thread_binding" not in serial_threads(kernel).script()


def test_threads_that_share_memory_are_refused():
    def body(out):
        with T.thread_binding(32, thread="threadIdx.x") as lane:
            shared = T.alloc_buffer((32,), "float32", scope="shared", layout=None)
            T.buffer_store(shared, T.float32(1), [lane])
            T.buffer_store(out, shared[31 - lane], [lane])

    with pytest.raises(ValueError, match="one after the other: shared"):
        serial_threads(prim_func({"out": ((32,), "float32")}, body))


def test_a_launch_inside_a_loop_is_refused():
    def body(out):
        with T.serial(2) as outer, T.thread_binding(32, thread="threadIdx.x") as lane:
            T.buffer_store(out, T.float32(1), [outer * 32 + lane])

    with pytest.raises(ValueError, match="thread_binding"):
        serial_threads(prim_func({"out": ((64,), "float32")}, body))
