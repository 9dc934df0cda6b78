"""What is read of machine code: of kernels whose loops and loads are known, and beside NVIDIA's disassembler where one is."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from enet_tvm.compiler.cuda.machine_code import KernelCode, Operation, read_machine_code, worst_bytes_per_fma
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools

ARCHS = ["sm_53", "sm_61", "sm_70", "sm_75", "sm_86", "sm_87", "sm_89", "sm_90"]

SOURCE = """
extern "C" __global__ void sums(float* out, const float4* __restrict__ w, const float* __restrict__ x, int n) {
  float a = 0, b = 0, c = 0, d = 0;
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    float4 v = w[k];
    float p = x[k * 512 + threadIdx.x];
    a += v.x * p; b += v.y * p; c += v.z * p; d += v.w * p;
  }
  ((float2*)out)[threadIdx.x] = make_float2(a + b, c + d);
}
extern "C" __global__ void nest(float* out, const float* __restrict__ x, int n, int m) {
  __shared__ float4 s[256];
  float a = 0;
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    s[threadIdx.x] = ((const float4*)x)[k * 256 + threadIdx.x];
    __syncthreads();
#pragma unroll 1
    for (int l = 0; l < m; ++l) { float4 v = s[(threadIdx.x + l) & 255]; a += v.x * v.y; a += v.z * v.w; }
    __syncthreads();
  }
  out[threadIdx.x] = a;
}
extern "C" __global__ void spilled(float* out, int n, int m) {
  float local[64];
  for (int i = 0; i < 64; ++i) local[i] = out[i + threadIdx.x];
  local[m] = 3;
  out[threadIdx.x] = local[n] * local[n + m];
}
extern "C" __global__ void halves(unsigned* out, unsigned w, int n) {
  unsigned z = out[threadIdx.x];
  for (int k = 0; k < n; ++k) asm volatile("fma.rn.f16x2 %0, %0, %1, %1;" : "+r"(z) : "r"(w));
  out[threadIdx.x] = z;
}
"""
MATRICES = """
extern "C" __global__ void matrices(float* c, const unsigned* __restrict__ w, int n) {
  __shared__ unsigned s[1024];
  s[threadIdx.x] = w[threadIdx.x];
  __syncthreads();
  unsigned at = (unsigned)__cvta_generic_to_shared(s), p, q;
  float x = 0, y = 0, z = 0, v = 0;
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(p), "=r"(q) : "r"(at + k));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(x), "+f"(y), "+f"(z), "+f"(v) : "r"(p), "r"(q), "r"(w[k]));
  }
  c[threadIdx.x] = x + y + z + v;
}
"""


def source_of(arch: str) -> str:
    """Return the kernels that an architecture has instructions for: those of matrices begin with sm_75."""
    return SOURCE + (MATRICES if int(arch.removeprefix("sm_")) >= 75 else "")


@pytest.fixture(scope="module")
def cubins(tools: CudaTools) -> dict[str, tuple[bytes, ...]]:
    """The kernels above as each architecture has them."""
    return {arch: assembled(compile_to_ptx(source_of(arch), arch, tools), arch, tools).cubins for arch in ARCHS}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("arch", ARCHS)
def test_loops_and_loads(cubins: dict[str, tuple[bytes, ...]], arch: str):
    kernels = read_machine_code(cubins[arch], arch)
    (loop,) = kernels["sums"].loops
    assert loop.counts[Operation.FMA] == 4
    assert [each.width for each in loop.instructions if each.operation is Operation.LOAD_GLOBAL] in ([16, 4], [4, 16])
    assert (loop.loaded_bytes, loop.bytes_per_fma, loop.innermost) == (20, 5.0, True)
    (store,) = (each for each in kernels["sums"].instructions if each.operation is Operation.STORE_GLOBAL)
    assert store.width == 8

    outer, inner = kernels["nest"].loops
    assert (outer.innermost, inner.innermost) == (False, True)
    assert outer.counts[Operation.BARRIER] == 2
    assert outer.counts[Operation.STORE_SHARED] == 1
    assert inner.counts[Operation.FMA] == 2
    assert inner.loaded_bytes == 16
    assert kernels["nest"].hot_loops == (inner,)

    stores = [each.width for each in kernels["spilled"].instructions if each.operation is Operation.STORE_LOCAL]
    assert sum(stores) == 4 * (64 + 1)
    assert kernels["spilled"].counts[Operation.LOAD_LOCAL] == 2
    assert kernels["spilled"].loops == ()
    assert sum(loop.counts[Operation.HALF2_FMA] for loop in kernels["halves"].loops) > 0


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if int(arch.removeprefix("sm_")) >= 75])
def test_matrices(cubins: dict[str, tuple[bytes, ...]], arch: str):
    (loop,) = read_machine_code(cubins[arch], arch)["matrices"].loops
    assert loop.counts[Operation.MATRIX] == 1
    assert [each.width for each in loop.instructions if each.operation is Operation.LOAD_MATRIX] == [8]


def test_the_worst_of_all_loops(cubins: dict[str, tuple[bytes, ...]]):
    kernels = read_machine_code(cubins["sm_86"], "sm_86")
    assert worst_bytes_per_fma(list(kernels.values())) == 8.0  # Four values of shared memory for two multiply-adds.
    assert worst_bytes_per_fma([kernels["sums"]]) == 5.0
    assert worst_bytes_per_fma([KernelCode("empty", ())]) == 0.0


def disassembler() -> Path | None:
    """Return an nvdisasm that knows every architecture: of PATH, a toolkit's, or that of triton 3.3, whose is of CUDA 12.8."""
    found = shutil.which("nvdisasm")
    triton = importlib.util.find_spec("triton")
    places = [Path(found)] if found else []
    places += [
        Path(each, "backends/nvidia/bin/nvdisasm") for each in (triton.submodule_search_locations if triton else None) or []
    ]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            told = subprocess.run([place, "--version"], capture_output=True, text=True, check=False).stdout
            if re.search(r"release 1[12]\.", told):
                return place
    return None


MNEMONICS = {
    **dict.fromkeys(("FFMA", "FFMA32I"), Operation.FMA),
    **dict.fromkeys(("FADD", "FMUL", "FMNMX", "FADD32I", "FMUL32I"), Operation.FLOAT),
    **dict.fromkeys(("HADD2", "HMUL2"), Operation.HALF2),
    **{"HFMA2": Operation.HALF2_FMA, "F2F": Operation.CONVERSION},
    **{"HMMA": Operation.MATRIX, "LDSM": Operation.LOAD_MATRIX, "BAR": Operation.BARRIER, "EXIT": Operation.EXIT},
    **{"LDG": Operation.LOAD_GLOBAL, "LDS": Operation.LOAD_SHARED, "LDL": Operation.LOAD_LOCAL, "BRA": Operation.BRANCH},
    **{"STG": Operation.STORE_GLOBAL, "STS": Operation.STORE_SHARED, "STL": Operation.STORE_LOCAL},
}
LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+\{?\s*(?:@!?U?PT?\d*\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?);")


def disassembled(text: str) -> dict[str, list[tuple[int, str, int | None]]]:
    """Return address, mnemonic and target of every instruction of every kernel that nvdisasm printed."""
    kernels: dict[str, list[tuple[int, str, str]]] = {}
    labels: dict[str, int] = {}
    waiting: list[str] = []
    current: list[tuple[int, str, str]] = []
    for line in text.splitlines():
        if head := re.match(r"\.text\.(\w+):", line):
            current = kernels.setdefault(head[1], [])
        elif label := re.match(r"(\.L_\w+):", line):
            waiting.append(label[1])
        elif found := LINE.search(line):
            labels |= dict.fromkeys(waiting, int(found[1], 16))
            waiting = []
            current.append((int(found[1], 16), found[2], found[3]))

    def target(mnemonic: str, operands: str) -> int | None:
        named = re.search(r"\.L_\w+", operands) if mnemonic.startswith("BRA") else None
        return labels[named[0]] if named else None

    return {name: [(at, op, target(op, rest)) for at, op, rest in lines] for name, lines in kernels.items()}


@pytest.mark.parametrize("arch", ARCHS)
def test_like_the_disassembler(cubins: dict[str, tuple[bytes, ...]], arch: str, tmp_path: Path):
    tool = disassembler()
    if tool is None:
        pytest.skip("there is no nvdisasm of CUDA 11 or 12 here: put one into PATH, or install triton 3.3")
    found: dict[str, list[tuple[int, str, int | None]]] = {}
    for cubin in cubins[arch]:
        file = tmp_path / "kernels.cubin"
        file.write_bytes(cubin)
        found |= disassembled(subprocess.run([tool, file], capture_output=True, text=True, check=True).stdout)
    kernels = read_machine_code(cubins[arch], arch)
    assert set(found) == set(kernels)
    for name, lines in found.items():
        read = {each.address: each for each in kernels[name].instructions}
        assert len(lines) > 10
        assert {address for address, _, _ in lines} <= set(read)
        for address, mnemonic, target in lines:
            each = read[address]
            assert each.operation == MNEMONICS.get(mnemonic.split(".")[0], Operation.OTHER), (name, mnemonic)
            assert each.target == target, (name, mnemonic)
            if each.width:
                size = re.search(r"\.(128|64|U16|S16|U8|S8)\b(?!\])", mnemonic)
                if each.operation is not Operation.LOAD_MATRIX:
                    bits = int(re.sub(r"\D", "", size[1])) if size else 32
                    assert each.width * 8 == bits, (name, mnemonic)
