from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import ptx_arch, ptx_entries
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.errors import UserError

DIVIDE = 'extern "C" __global__ void divide(float* a, float* b) { a[threadIdx.x] /= b[threadIdx.x]; }'


@pytest.mark.parametrize("arch", ["sm_53", "sm_61", "sm_75", "sm_86", "sm_87", "sm_89", "sm_90"])
def test_every_architecture(tools: CudaTools, arch: str):
    ptx = compile_to_ptx(DIVIDE, arch, tools)
    assert (ptx_arch(ptx), ptx_entries(ptx)) == (arch, ("divide",))


def test_the_same_twice(tools: CudaTools):
    assert compile_to_ptx(DIVIDE, "sm_53", tools) == compile_to_ptx(DIVIDE, "sm_53", tools)


def test_division_is_exact(tools: CudaTools):
    """TVM's wrapper compiles with --use_fast_math, and a softmax is then not PyTorch's."""
    ptx = compile_to_ptx(DIVIDE, "sm_53", tools)
    assert "div.rn.f32" in ptx
    assert "approx" not in ptx


def test_headers_that_generated_code_takes(tools: CudaTools):
    assert compile_to_ptx(f"#include <cuda/std/cstdint>\n#include <cuda_fp16.h>\n{DIVIDE}", "sm_53", tools)


def test_code_that_is_wrong(tools: CudaTools):
    with pytest.raises(RuntimeError, match="undefined"):
        compile_to_ptx('extern "C" __global__ void k() { nonsense(); }', "sm_53", tools)


def test_an_unknown_architecture(tools: CudaTools):
    with pytest.raises(UserError, match=r"knows no architecture sm_42; correct the target's gpu.arch"):
        compile_to_ptx(DIVIDE, "sm_42", tools)
