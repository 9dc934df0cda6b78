"""Limits of registers, by the assembler itself."""

from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import with_register_limits, with_version
from enet_tvm.compiler.cuda.ptxas import assemble
from enet_tvm.compiler.cuda.register_limits import free_limits
from enet_tvm.compiler.cuda.tools import CudaTools

SUMS = 24
"""Sums that each thread of the larger kernel keeps in registers, from the first to the last loop."""

SOURCE = f"""
extern "C" __global__ void __launch_bounds__(128) large(const float* __restrict__ x, float* __restrict__ y) {{
  float sum[{SUMS}];
  #pragma unroll
  for (int i = 0; i < {SUMS}; ++i) sum[i] = x[threadIdx.x + 128 * i];
  for (int k = 0; k < 64; ++k) {{
    float value = x[k];
    #pragma unroll
    for (int i = 0; i < {SUMS}; ++i) sum[i] = sum[i] * value + sum[(i + 1) % {SUMS}];
  }}
  #pragma unroll
  for (int i = 0; i < {SUMS}; ++i) y[threadIdx.x + 128 * i] = sum[i];
}}
extern "C" __global__ void small(float* y) {{ y[threadIdx.x] = 1.0f; }}
"""


@pytest.fixture(scope="module")
def ptx(tools: CudaTools) -> str:
    return with_version(compile_to_ptx(SOURCE, "sm_53", tools), "6.5")


@pytest.mark.parametrize("arch", ["sm_53", "sm_61", "sm_75", "sm_86", "sm_90"])
def test_a_limit_is_kept_and_nothing_spills(ptx: str, arch: str, tools: CudaTools):
    limits = free_limits(ptx, arch, 255, tools)
    limited = {kernel.name: kernel for kernel in assemble(with_register_limits(ptx, limits), arch, tools)}
    assert set(limits) <= {"large", "small"}
    assert limits["small"] % 8 == 0
    assert all(limited[name].registers <= limit and not limited[name].spill_bytes for name, limit in limits.items())


def test_what_takes_more_than_a_target_allows_is_left_alone(ptx: str, tools: CudaTools):
    assert "large" not in free_limits(ptx, "sm_53", 16, tools)


def test_a_limit_below_what_a_kernel_takes_is_no_free_one(ptx: str, tools: CudaTools):
    """That the assembler keeps to a limit at all: far below, it spills."""
    (large,) = (k for k in assemble(with_register_limits(ptx, {"large": 24}), "sm_53", tools) if k.name == "large")
    assert large.registers <= 24
    assert large.spill_bytes > 0
