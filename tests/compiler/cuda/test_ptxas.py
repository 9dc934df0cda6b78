from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda.machine_code import read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import with_version
from enet_tvm.compiler.cuda.ptxas import KernelResources, assemble, assembled, parse_resources
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.errors import UserError

SHARED = """
extern "C" __global__ void shared(float* a) {
  __shared__ float s[256];
  s[threadIdx.x] = a[threadIdx.x];
  __syncthreads();
  a[threadIdx.x] = s[255 - threadIdx.x];
}
extern "C" __global__ void plain(float* a) { a[threadIdx.x] += 1; }
"""

# A copy past the registers: instructions of ISA 7.0, from sm_80 on.
ASYNC = """
extern "C" __global__ void k(float* a) {
  __shared__ float s[32];
  unsigned at = __cvta_generic_to_shared(s + threadIdx.x);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(a + threadIdx.x));
  asm volatile("cp.async.wait_all;");
  a[threadIdx.x] = s[31 - threadIdx.x];
}
"""


def test_what_kernels_take(tools: CudaTools):
    plain, shared = assemble(compile_to_ptx(SHARED, "sm_53", tools), "sm_53", tools)
    assert (plain.name, plain.shared_bytes, shared.name, shared.shared_bytes) == ("plain", 0, "shared", 1024)
    assert 0 < plain.registers < 32
    assert plain.spill_bytes == plain.stack_bytes == 0


def test_kernels_apart_are_as_they_are_together(tools: CudaTools):
    """Each is assembled alone; functions that they call keep them together."""
    ptx = compile_to_ptx(SHARED, "sm_53", tools)
    apart = assembled(ptx, "sm_53", tools)
    assert len(apart.cubins) == 2
    together = assembled(f"{ptx}\n.func never_called()\n{{\n\tret;\n}}\n", "sm_53", tools)
    assert len(together.cubins) == 1
    assert apart.resources == together.resources
    kernels = read_machine_code(apart.cubins, "sm_53")
    assert {name: kernels[name] for name in ("plain", "shared")} == {
        name: code for name, code in read_machine_code(together.cubins, "sm_53").items() if name != "never_called"
    }


def test_registers_that_spill_are_seen(tools: CudaTools):
    """1024 threads of 65536 registers leave 64 for each, and this one wants some hundred."""
    sums = " ".join(f"float s{i} = a[{i} * 1024 + t];" for i in range(100))
    uses = " ".join(f"a[{i} * 1024 + t] = s{i} * s{(i + 57) % 100} + s{(i + 31) % 100};" for i in range(100))
    source = f'extern "C" __global__ void __launch_bounds__(1024) k(volatile float* a) {{ int t = threadIdx.x; {sums} {uses} }}'
    (kernel,) = assemble(compile_to_ptx(source, "sm_61", tools), "sm_61", tools)
    assert kernel.registers <= 64
    assert kernel.spill_bytes > 0


def test_what_an_isa_lacks_is_rejected(tools: CudaTools):
    """So lowering the version of what really is newer does not pass unnoticed."""
    ptx = compile_to_ptx(ASYNC, "sm_87", tools)
    assert assemble(with_version(ptx, "7.4"), "sm_87", tools)
    with pytest.raises(UserError, match=r"ptxas rejects the device code for sm_87 \(.*\); correct gpu.arch and gpu.ptx"):
        assemble(with_version(ptx, "6.5"), "sm_87", tools)


def test_code_for_a_newer_gpu_is_rejected(tools: CudaTools):
    with pytest.raises(UserError, match="ptxas rejects the device code for sm_53"):
        assemble(compile_to_ptx(SHARED, "sm_75", tools), "sm_53", tools)


def test_an_assembler_that_does_not_start(tools: CudaTools, tmp_path):
    with pytest.raises(UserError, match=r"cannot run .*; install it again"):
        assemble("", "sm_53", CudaTools(tools.nvrtc, tmp_path / "ptxas", tools.includes))


def test_reading_the_log():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'b' for 'sm_53'
ptxas info    : Function properties for b
    8 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 364 bytes cmem[0]
ptxas info    : Compiling entry function 'a' for 'sm_53'
ptxas info    : Function properties for a
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 344 bytes cmem[0]
"""
    assert parse_resources(log) == (KernelResources("a", 12, 0, 0, 0), KernelResources("b", 40, 20, 8, 1024))
