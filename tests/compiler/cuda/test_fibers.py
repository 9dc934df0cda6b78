"""The fibers that kernels are proved on: right numbers, and every fault that they are there for is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_fibers import KernelFaultError, compile_fibers

REVERSED = """
extern "C" __global__ void __launch_bounds__(64) kernel(const float* __restrict__ data, float* __restrict__ out, int times) {
  __shared__ __align__(16) float s[64];
  int t = threadIdx.x;
  for (int i = 0; i < times; ++i) {
    if (WRITES) s[t] = data[blockIdx.x * 64 + t] + i;
    BARRIER;
    out[blockIdx.x * 64 + t] = s[63 - t];
    SECOND;
  }
}
"""
WHOLE = {"WRITES": "true", "BARRIER": "__syncthreads()", "SECOND": "__syncthreads()"}
DATA = np.arange(256, dtype=np.float32)


def out(count: int = 256, dtype: type = np.float32) -> np.ndarray:
    return np.full(count, np.nan, dtype)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("seed", range(3))
def test_barriers(tmp_path: Path, seed: int):
    program = compile_fibers(REVERSED, tmp_path, WHOLE)
    arrays = program.launch("kernel", (4,), (64,), {"data": DATA, "out": out(), "times": 3}, seed=seed)
    np.testing.assert_array_equal(arrays["out"], DATA.reshape(4, 64)[:, ::-1].ravel() + 2)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("changes", "blocks", "said"),
    [
        ({"BARRIER": ""}, 4, r"reads shared\[\d+\], which nobody has written"),
        ({"SECOND": ""}, 4, r"shared\[\d+\], which thread \(\d+, 0, 0\) (wrote|read) without a barrier between"),
        ({"WRITES": "t != 7"}, 4, r"reads shared\[7\], which nobody has written"),
        ({"SECOND": "if (t < 32) __syncthreads()"}, 4, "barrier"),
        ({}, 5, r"reads 4 bytes at byte \d+ of data, which has 1024"),
    ],
    ids=["no barrier before the reads", "none after them", "a value unwritten", "a barrier for some", "outside"],
)
def test_what_no_kernel_may_do(tmp_path: Path, changes: dict[str, str], blocks: int, said: str):
    program = compile_fibers(REVERSED, tmp_path, {**WHOLE, **changes})
    with pytest.raises(KernelFaultError, match=said):
        program.launch("kernel", (blocks,), (64,), {"data": DATA, "out": out(), "times": 2})


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("out[threadIdx.x] = 1.f;", "writes out.*, which thread .* of another block wrote in the same launch"),
        ("out[64 * blockIdx.x + threadIdx.x / 2] = 1.f;", "writes out.*wrote in the same launch"),
        ("*(float4*)(out + 1 + 4 * threadIdx.x) = make_float4(1, 2, 3, 4);", "not aligned"),
        ("((float*)data)[threadIdx.x] = 1.f;", "writes to data, which is constant"),
        ("if (threadIdx.x) __shfl_sync(~0u, 1, 0);", "31 of warp 0's threads come to an instruction that all must come to"),
        ("out[65536 * 16] = 1.f;", "belongs to no array"),
        ("out[-1 - (int)threadIdx.x] = 1.f;", "writes 4 bytes at byte -"),
    ],
)
def test_what_no_statement_may_do(tmp_path: Path, statement: str, said: str):
    source = f'extern "C" __global__ void kernel(const float* data, float* out) {{ {statement} }}'
    with pytest.raises(KernelFaultError, match=said):
        compile_fibers(source, tmp_path).launch("kernel", (2,), (64,), [DATA, out(512)])


def test_lanes_of_a_warp(tmp_path: Path):
    source = """
    __global__ void kernel(const float* data, float* out, int* index) {
      float v = data[threadIdx.x];
      for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
      out[threadIdx.x] = v;
      index[threadIdx.x] = 100 * __shfl_up_sync(~0u, (int)threadIdx.x, 1, 8) + __shfl_down_sync(~0u, (int)threadIdx.x, 3);
    }"""
    arrays = compile_fibers(source, tmp_path).launch("kernel", (1,), (64,), [DATA, out(64), np.zeros(64, np.int32)])
    np.testing.assert_array_equal(arrays["out"], DATA[:64].reshape(2, 32).sum(1).repeat(32))
    lanes = np.arange(64)
    up, down = np.where(lanes % 8 == 0, lanes, lanes - 1), np.where(lanes % 32 < 29, lanes + 3, lanes)
    np.testing.assert_array_equal(arrays["index"], 100 * up + down)


def test_what_a_warp_writes_for_itself_needs_no_barrier_of_the_block(tmp_path: Path):
    source = """
    __global__ void kernel(const float* data, float* out) {
      __shared__ float s[64];
      s[threadIdx.x] = data[threadIdx.x];
      __syncwarp();
      out[threadIdx.x] = s[threadIdx.x ^ OTHER];
    }"""
    arrays = compile_fibers(source, tmp_path, {"OTHER": 31}).launch("kernel", (1,), (64,), [DATA, out(64)])
    np.testing.assert_array_equal(arrays["out"], DATA[np.arange(64) ^ 31])
    with pytest.raises(KernelFaultError, match="shared"):
        compile_fibers(source, tmp_path, {"OTHER": 32}).launch("kernel", (1,), (64,), [DATA, out(64)])


def test_dynamic_shared_memory_and_indices(tmp_path: Path):
    source = """
    __global__ void kernel(int* out) {
      extern __shared__ __align__(16) int s[];
      int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
      s[t] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
      __syncthreads();
      out[s[23 - t] * 24 + t] = t;
    }"""
    program = compile_fibers(source, tmp_path)
    arrays = program.launch("kernel", (2, 3, 2), (4, 2, 3), [np.zeros(288, np.int32)], dynamic_shared=96)
    np.testing.assert_array_equal(arrays["out"], np.tile(np.arange(24), 12))
    with pytest.raises(KernelFaultError, match=r"byte 92 of dynamic shared, which has 92"):
        program.launch("kernel", (2, 3, 2), (4, 2, 3), [np.zeros(288, np.int32)], dynamic_shared=92)


MMA = """
__global__ void kernel(const half* a, const half* b, const float* c, float* d) {
  // 16 x K of A, rows of K; K x 8 of B, rows of 8; through ldmatrix, as PTX's fragments want them.
  __shared__ __align__(16) half sa[16 * K];
  __shared__ __align__(16) half sb[K * 8];
  int t = threadIdx.x, g = t / 4, i = t % 4;
  for (int n = t; n < 16 * K; n += 32) sa[n] = a[n];
  for (int n = t; n < K * 8; n += 32) sb[n] = b[n];
  __syncthreads();
  float s[4] = {c[g * 8 + 2 * i], c[g * 8 + 2 * i + 1], c[g * 8 + 64 + 2 * i], c[g * 8 + 64 + 2 * i + 1]};
  uint ra[4], rb[2];
#if K == 16
  uint pa = __cvta_generic_to_shared(&sa[t % 16 * 16 + t / 16 * 8]), pb = __cvta_generic_to_shared(&sb[t % 16 * 8]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\\n"
    : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(pa));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(pb));
  asm volatile("{ mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
    "{%10, %11, %12, %13}; }" : "=f"(s[0]), "=f"(s[1]), "=f"(s[2]), "=f"(s[3])
    : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]), "f"(s[0]), "f"(s[1]), "f"(s[2]), "f"(s[3]));
#else
  uint pa = __cvta_generic_to_shared(&sa[t % 16 * 8]), pb = __cvta_generic_to_shared(&sb[t % 8 * 8]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(ra[0]), "=r"(ra[1]) : "r"(pa));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(rb[0]) : "r"(pb));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
    : "=f"(s[0]), "=f"(s[1]), "=f"(s[2]), "=f"(s[3])
    : "r"(ra[0]), "r"(ra[1]), "r"(rb[0]), "f"(s[0]), "f"(s[1]), "f"(s[2]), "f"(s[3]));
#endif
  d[g * 8 + 2 * i] = s[0], d[g * 8 + 2 * i + 1] = s[1], d[g * 8 + 64 + 2 * i] = s[2], d[g * 8 + 64 + 2 * i + 1] = s[3];
}
"""


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("depth", [8, 16])
def test_matrices_of_a_warp(tmp_path: Path, depth: int):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, shape).astype(np.float16) for shape in ((16, depth), (depth, 8)))
    c = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    program = compile_fibers(MMA, tmp_path, {"K": depth})
    arrays = program.launch("kernel", (1,), (32,), [a, b, c, np.full((16, 8), np.nan, np.float32)])
    np.testing.assert_array_equal(arrays["d"], a.astype(np.float32) @ b.astype(np.float32) + c)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("scales", [(1, 1), (2.0**-8, 2.0**-14)], ids=["normal", "subnormal"])
def test_two_halves_at_once(tmp_path: Path, scales: tuple[float, float]):
    """The exact sum of a product and an addend, rounded once; also where it has fewer bits than most."""
    source = """
    __global__ void kernel(const uint* a, const uint* b, const uint* c, uint* out) {
      int t = threadIdx.x;
      asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out[t]) : "r"(a[t]), "r"(b[t]), "r"(c[t]));
    }"""
    rng = np.random.default_rng(1)
    factors, addends = scales
    a, b, c = ((rng.standard_normal(128) * scale).astype(np.float16) for scale in (factors, factors, addends))
    words = [x.view(np.uint32) for x in (a, b, c)]
    arrays = compile_fibers(source, tmp_path).launch("kernel", (1,), (64,), [*words, np.zeros(64, np.uint32)])
    exact = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    np.testing.assert_array_equal(arrays["out"].view(np.float16), exact.astype(np.float16))
