from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.building import barrier, private, shared
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window


def test_no_thread_is_left():
    kernel = gpu_max_pool2d_with_window((1, 2, 8, 8))
    assert "thread_binding" in kernel.script()
    assert "thread_binding" not in serial_threads(kernel).script()


def reversed_by(body):
    """Return a kernel of 32 threads; its body is given data, out, shared memory and the thread's number."""

    def kernel(data, out):
        with T.thread_binding(32, thread="threadIdx.x") as lane:
            body(data, out, shared((32,)), lane)

    return prim_func({"data": ((32,), "float32"), "out": ((32,), "float32")}, kernel)


def test_threads_wait_for_each_other_at_a_barrier(run_kernel):
    def body(data, out, memory, lane):
        T.buffer_store(memory, data[lane], [lane])
        barrier()
        T.buffer_store(out, memory[31 - lane], [lane])

    x = np.arange(32, dtype=np.float32)
    np.testing.assert_array_equal(run_kernel(serial_threads(reversed_by(body)), x, shape=(32,)), x[::-1])


def test_a_barrier_too_few_is_refused():
    def body(data, out, memory, lane):
        T.buffer_store(memory, data[lane], [lane])
        T.buffer_store(out, memory[31 - lane], [lane])

    with pytest.raises(ValueError, match="shared memory without a barrier"):
        serial_threads(reversed_by(body))


def test_a_barrier_in_a_loop_is_refused():
    def body(data, out, memory, lane):
        with T.serial(2):
            T.buffer_store(memory, data[lane], [lane])
            barrier()
            T.buffer_store(out, memory[31 - lane], [lane])

    with pytest.raises(ValueError, match="one after the other: sync"):
        serial_threads(reversed_by(body))


def test_a_register_that_lives_across_a_barrier_is_refused():
    def body(data, out, memory, lane):
        value = private((1,))
        T.buffer_store(value, data[lane], [0])
        T.buffer_store(memory, data[lane], [lane])
        barrier()
        T.buffer_store(out, memory[31 - lane] + value[0], [lane])

    with pytest.raises(ValueError, match="a register lives across a barrier"):
        serial_threads(reversed_by(body))


def test_a_launch_inside_a_loop_is_refused():
    def body(out):
        with T.serial(2) as outer, T.thread_binding(32, thread="threadIdx.x") as lane:
            T.buffer_store(out, T.float32(1), [outer * 32 + lane])

    with pytest.raises(ValueError, match="thread_binding"):
        serial_threads(prim_func({"out": ((64,), "float32")}, body))
