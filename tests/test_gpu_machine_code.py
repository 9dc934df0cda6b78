"""What the assembler makes of ENet for every GPU: no spills, registers within the cap, loads as wide as asked for, barriers.

Of the same machine code: the bytes that hot loops load, and the time that the model makes of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from cuda_network import CudaNetwork
from gpu_enet import enet_for_gpu
from gpu_targets import GPU_TARGETS
from markdown_files import Document

from enet_tvm.artifact import Precision
from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.compiler.cuda.machine_code import LOADS, KernelCode, Operation, read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import with_version
from enet_tvm.compiler.cuda.ptxas import KernelResources, assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA
from enet_tvm.compiler.pipeline import Compiled
from enet_tvm.compiler.roofline import KernelPrediction, predict_compiled
from enet_tvm.targets import load_target
from enet_tvm.targets.spec import GpuSpec

MILLISECONDS = {"jetson-tx1": 11.5, "rtx-3090": 0.28, "h100": 0.155}
"""What the kernels of ENet at 640x360 may take by the model, without what lies between them."""
HALF_MILLISECONDS = {"jetson-tx1": 7.8, "rtx-3090": 0.12, "h100": 0.065}
"""The same in float16."""
COLUMNS = {"jetson-tx1": "Jetson TX1", "rtx-3090": "RTX 3090", "h100": "H100"}
"""Where docs/roofline.md has the predictions for a target."""
WIDE = 16
"""Bytes of the widest load of a thread: four floats."""


@dataclass(frozen=True)
class Built:
    """Kernels on the whole way: CUDA C++, PTX, and machine code, each by the kernel's name."""

    gpu: GpuSpec
    source: dict[str, str]
    ptx: dict[str, str]
    code: dict[str, KernelCode]
    resources: dict[str, KernelResources]

    @classmethod
    def of(cls, source: str, ptx: str, gpu: GpuSpec, tools: CudaTools) -> Built:
        machine = assembled(ptx, gpu.arch, tools)
        return cls(
            gpu,
            sections(source, r"__global__ void __launch_bounds__\([^)]*\) (\w+)\([^)]*\) \{"),
            sections(ptx, r"\.entry (\w+)\("),
            read_machine_code(machine.cubins, gpu.arch),
            {kernel.name: kernel for kernel in machine.resources},
        )


@pytest.fixture(scope="module")
def build(tools: CudaTools) -> Callable[..., tuple[Built, CudaNetwork, Compiled]]:
    """Makes ``build(target, dtype)`` ENet at 640x360 for it."""

    def make(target: str, dtype: Precision = "float32") -> tuple[Built, CudaNetwork, Compiled]:
        network, compiled = enet_for_gpu(target, dtype)
        return Built.of(network.source, compiled.device_code, load_target(target).gpu, tools), network, compiled

    return make


def sections(text: str, head: str) -> dict[str, str]:
    """Return the pieces of a text that begin with `head`, by its first group."""
    starts = [*re.finditer(head, text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return {match[1]: text[match.start() : end] for match, end in zip(starts, ends, strict=True)}


def loads_asked(ptx: str) -> Counter[bool]:
    """Return how many loads from global and shared memory a kernel asks for, of four words (True) and narrower."""
    loads = re.findall(r"ld\.(?:global(?:\.nc)?|shared)(\.v4\.[fub]32)?", ptx)
    return Counter(map(bool, loads))


def faults(built: Built) -> list[str]:
    """Return what is wrong with the machine code of a network, kernel by kernel."""
    wrong = []
    assert built.code.keys() == built.ptx.keys() == built.source.keys() == built.resources.keys()
    for name, code in built.code.items():
        taken, counts = built.resources[name], code.counts
        if taken.spill_bytes or taken.stack_bytes or counts[Operation.LOAD_LOCAL] or counts[Operation.STORE_LOCAL]:
            wrong.append(f"{name} keeps {taken.spill_bytes or taken.stack_bytes} bytes of a thread's registers in memory")
        if taken.registers > built.gpu.max_registers:
            wrong.append(f"{name} takes {taken.registers} registers, and there are {built.gpu.max_registers}")
        if taken.shared_bytes > built.gpu.max_shared_memory_per_block:
            wrong.append(f"{name} takes {taken.shared_bytes} bytes of shared memory")
        barriers = len(re.findall(r"__syncthreads\(\)", built.source[name]))
        # A loop that is unrolled has them several times.
        if counts[Operation.BARRIER] < barriers or bool(counts[Operation.BARRIER]) != bool(barriers):
            wrong.append(f"{name} has {counts[Operation.BARRIER]} barriers, and its source {barriers}")
        asked = loads_asked(built.ptx[name])
        widths = [each.width for each in code.instructions if each.operation in LOADS]
        wide = widths.count(WIDE)
        # One that reads again what is in registers yet is left out; one that was split makes narrower ones.
        split = wide < asked[True] and len(widths) - wide > asked[False]
        if split or (not asked[True] and re.search(r"= \*\((?:const )?float4\*\)", built.source[name])):
            wrong.append(f"{name} has {wide} loads of {WIDE} bytes, and asks for {asked[True]}")
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("target", GPU_TARGETS)
def test_enet(build: Callable[[str], tuple[Built, CudaNetwork, Compiled]], target: str):
    built, network, compiled = build(target)
    assert faults(built) == []
    widths = Counter(each.width for code in built.code.values() for each in code.instructions if each.operation in LOADS)
    assert widths[WIDE] > 100
    assert sum(code.counts[Operation.FMA] for code in built.code.values()) > 1000
    assert len(built.code) == len(network.kernels)
    predicted = predict_compiled(compiled, Chip.of(load_target(target)))
    loaded = {each.kernel: each.bytes_per_fma for each in predicted if each.bytes_per_fma is not None}
    assert len(loaded) >= 17
    assert not {kernel: amount for kernel, amount in loaded.items() if amount > BYTES_PER_FMA}
    if target in MILLISECONDS:
        assert sum(each.bounds.longest for each in predicted) / 1e3 <= MILLISECONDS[target]
        assert_documented(target, "float32", predicted)


@pytest.mark.slow
@pytest.mark.parametrize("target", GPU_TARGETS)
def test_enet_in_float16(build: Callable[..., tuple[Built, CudaNetwork, Compiled]], target: str):
    """Every hot loop of most kernels multiplies pairs or matrices, and nothing else, where the GPU has a rate for them."""
    built, _, compiled = build(target, "float16")
    assert faults(built) == []
    wanted = {"jetson-tx1": Operation.HALF2_FMA, "gtx-1080": Operation.FMA}.get(target, Operation.MATRIX)
    least = 1 if wanted is Operation.MATRIX else 16  # Compilers also make constants by a multiply-add of pairs.
    computing = [name for name, code in built.code.items() if code.counts[wanted] >= least]
    for name in computing:
        for loop in built.code[name].hot_loops:
            products = sum(each.products for each in loop.instructions if each.operation is wanted)
            assert products == loop.products, name
    # Float32's are the initial block, two that begin with a transposed convolution, and the last; where matrices are
    # multiplied, the one that downsamples too.
    others = {Operation.FMA: 0, Operation.HALF2_FMA: 4, Operation.MATRIX: 5}[wanted]
    assert len(computing) == len(built.code) - others
    if target in HALF_MILLISECONDS:
        predicted = predict_compiled(compiled, Chip.of(load_target(target)))
        assert sum(each.bounds.longest for each in predicted) / 1e3 <= HALF_MILLISECONDS[target]
        assert_documented(target, "float16", predicted)


def assert_documented(target: str, dtype: str, predicted: Sequence[KernelPrediction]) -> None:
    """Check that docs/roofline.md says what is predicted, but for what NVRTC's PTX varies by."""
    ((heading, *rows),) = [table for table in Document("docs/roofline.md").tables() if COLUMNS[target] in table[0]]
    (row,) = [dict(zip(heading, row, strict=True)) for row in rows if row[0].startswith(f"`--dtype {dtype}`")]
    assert row["launches"] == str(len(predicted))
    said = row[COLUMNS[target]]
    last_digit = 10.0 ** -len(said.partition(".")[2])
    assert sum(each.microseconds for each in predicted) / 1e3 == pytest.approx(float(said), rel=0.02, abs=last_digit)


def test_every_architecture_has_its_target():
    assert {target: load_target(target).gpu.arch for target in GPU_TARGETS} == GPU_TARGETS


SMALL = """
extern "C" __global__ void __launch_bounds__(128) kernel(const float4* __restrict__ data, float* __restrict__ out, int at) {
  __shared__ float s[128];
  int t = threadIdx.x;
  float4 four = LOAD;
  s[t] = four.x + four.y + four.z + four.w;
  BARRIER
  KEPT
  out[t] = s[127 - t];
}
"""
LOCAL = """
  float a[64];
  for (int i = 0; i < 64; ++i) a[i] = s[i];
  for (int i = 0; i < at; ++i) a[(i * 7 + at) % 64] += a[i];
  s[t] = a[at];
"""


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("target", GPU_TARGETS)
def test_what_is_wrong_is_found(tools: CudaTools, target: str):
    gpu = load_target(target).gpu

    def made(load: str = "*(float4*)(data + t)", barrier: str = "__syncthreads();", kept: str = "") -> Built:
        source = SMALL.replace("LOAD", load).replace("BARRIER", barrier).replace("KEPT", kept)
        return Built.of(source, with_version(compile_to_ptx(source, gpu.arch, tools), gpu.ptx), gpu, tools)

    whole = made()
    assert faults(whole) == []
    assert whole.code["kernel"].counts[Operation.BARRIER] == 1
    without = made(barrier="")
    assert without.code["kernel"].counts[Operation.BARRIER] == 0
    assert "barriers" in faults(replace(without, source=whole.source))[0]
    assert "barriers" in faults(replace(whole, source=without.source))[0]
    assert "in memory" in faults(made(kept=LOCAL))[0]
    assert "registers, and there are 4" in faults(replace(whole, gpu=gpu.model_copy(update={"max_registers": 4})))[0]
    narrow = made(load="make_float4(((float*)data)[t], ((float*)data)[t + 9], 1.f, 2.f)")
    assert faults(narrow) == []
    assert "loads of 16 bytes" in faults(replace(narrow, source=whole.source))[0]
    assert "loads of 16 bytes" in faults(replace(narrow, ptx=whole.ptx))[0]
