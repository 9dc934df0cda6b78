"""The counts of sectors and bank conflicts that kernels are held to, on accesses whose counts are known."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_fibers import FiberProgram, compile_fibers
from warp_accesses import Traffic, traffic

SOURCE = """
extern "C" __global__ void load(const float* data, float* out, int stride) { out[threadIdx.x] = data[threadIdx.x * stride]; }
extern "C" __global__ void load4(const float4* data, float4* out, int stride) { out[threadIdx.x] = data[threadIdx.x * stride]; }
extern "C" __global__ void shared(float* out, int stride) {
  __shared__ __align__(16) float s[4096];
  for (int i = threadIdx.x; i < 4096; i += 32) s[i] = i;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x * stride];
}
extern "C" __global__ void shared4(float4* out, int stride) {
  __shared__ __align__(16) float4 s[1024];
  for (int i = threadIdx.x; i < 1024; i += 32) s[i] = make_float4(i, i, i, i);
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x * stride];
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> FiberProgram:
    return compile_fibers(SOURCE, tmp_path_factory.mktemp("fibers"))


def counted(program: FiberProgram, kernel: str, **arguments: np.ndarray | float) -> Traffic:
    return traffic(program.trace(kernel, (1,), (32,), arguments, 0))


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.float32)


@pytest.mark.parametrize(("stride", "sectors", "least"), [(0, 1, 1), (1, 4, 4), (2, 8, 4), (8, 32, 4), (9, 32, 4)])
def test_loads_of_floats(program: FiberProgram, stride: int, sectors: int, least: int):
    counts = counted(program, "load", data=zeros(512), out=zeros(32), stride=stride)
    assert (counts.loads, counts.least_loads, counts.stores, counts.least_stores) == (sectors, least, 4, 4)
    assert counts.load_ratio == sectors / least


@pytest.mark.parametrize(("stride", "sectors"), [(1, 16), (2, 32)])
def test_loads_of_vectors(program: FiberProgram, stride: int, sectors: int):
    counts = counted(program, "load4", data=zeros(512), out=zeros(128), stride=stride)
    assert (counts.loads, counts.least_loads, counts.stores) == (sectors, 16, 16)


@pytest.mark.parametrize(("stride", "conflicts"), [(0, 0), (1, 0), (2, 1), (3, 0), (4, 3), (32, 31), (33, 0)])
def test_banks(program: FiberProgram, stride: int, conflicts: int):
    counts = counted(program, "shared", out=zeros(32), stride=stride)
    assert (counts.shared, counts.conflicts) == (4096 // 32 + 1, conflicts)


@pytest.mark.parametrize(("stride", "conflicts"), [(0, 0), (1, 0), (2, 4), (8, 28)])
def test_banks_of_vectors(program: FiberProgram, stride: int, conflicts: int):
    """Four turns of eight lanes each."""
    counts = counted(program, "shared4", out=zeros(128), stride=stride)
    assert (counts.shared, counts.conflicts) == (4 * (1024 // 32 + 1), conflicts)
