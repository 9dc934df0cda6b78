from __future__ import annotations

import pytest
from tvm import s_tir, te
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.conv2d import gpu_conv2d
from enet_tvm.compiler.kernels.gpu.geometry import Geometry, geometry_of
from enet_tvm.compiler.kernels.gpu.tile import GpuTile
from enet_tvm.compiler.kernels.gpu.transposed import gpu_conv2d_transpose
from enet_tvm.compiler.ops import FusedConv2D


def test_a_convolution():
    spec = FusedConv2D((1, 16, 64, 96), (1, 24, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    found = geometry_of(gpu_conv2d(spec, GpuTile(4, 8, 32, 3)))
    assert (found.blocks, found.threads) == (48, 96)
    assert found.multiply_adds * found.blocks * found.threads == 64 * 96 * 24 * 16 * 9
    assert found.loops == (3, 3, 4)
    weights, biases, data, out = 9 * 16 * 24 * 4, 24 * 4, 64 * 96 * 16 * 4, 64 * 96 * 24 * 4
    assert found.tensor_bytes == weights + biases + data + out


def test_threads_that_share_a_tile_share_its_multiply_adds():
    spec = FusedConv2D((1, 16, 64, 96), (1, 24, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    alone, shared = (geometry_of(gpu_conv2d(spec, GpuTile(4, 8, 32, 1, splits))) for splits in (1, 4))
    assert shared.multiply_adds * 4 == alone.multiply_adds
    assert shared.threads == 4 * alone.threads
    assert shared.blocks == alone.blocks


@pytest.mark.parametrize(("tile", "channels"), [(GpuTile(4, 8, 32, 3), 1), (GpuTile(4, 8, 32, 1), 3)])
def test_each_block_of_pixels_reads_the_weights(tile: GpuTile, channels: int):
    """And each block of channels the pixels, of which those at its edge that a neighbour has as well are not counted again."""
    spec = FusedConv2D((1, 16, 64, 96), (1, 24, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    found = geometry_of(gpu_conv2d(spec, tile))
    weights, biases, data, out = 9 * 16 * 24 * 4, 24 * 4, 64 * 96 * 16 * 4, 64 * 96 * 24 * 4
    assert found.block_bytes == (weights + biases) * found.blocks // channels + data * channels + out


def test_a_transposed_convolution():
    spec = FusedConv2D((1, 4, 8, 32), (1, 8, 16, 64), (3, 3), (2, 2), (1, 1), (1, 1), True)
    found = geometry_of(gpu_conv2d_transpose(spec, GpuTile(2, 4, 32, 2)))
    assert found.multiply_adds * found.blocks * found.threads == 8 * 32 * 8 * 4 * 9
    assert found.loops == (4,)


def test_what_multiplies_nothing():
    def body(out):
        with T.thread_binding(3, thread="blockIdx.x") as block, T.thread_binding(64, thread="threadIdx.x") as lane:
            T.buffer_store(out, T.float32(1), [block * 64 + lane])

    assert geometry_of(prim_func({"out": ((192,), "float32")}, body)) == Geometry(3, 64, 0, (), (), 768, 768)


def test_a_kernel_of_tvms_own():
    """Its indices are variables of TVM's blocks, which are bound to those of the grid."""
    x = te.placeholder((64, 96), "float32", name="x")
    schedule = s_tir.Schedule(te.create_prim_func([x, te.compute((64, 96), lambda i, j: x[i, j] + x[0, j], name="y")]))
    rows, columns = schedule.get_loops(schedule.get_sblock("y"))
    schedule.bind(rows, "blockIdx.x")
    schedule.bind(columns, "threadIdx.x")
    size = 64 * 96 * 4
    assert geometry_of(schedule.mod["main"]) == Geometry(64, 96, 0, (), (), 2 * size, 2 * size)
