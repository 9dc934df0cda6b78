"""Modules of kernels of which most were compiled before: byte for byte what NVRTC makes of the whole."""

from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda import incremental as module
from enet_tvm.compiler.cuda.incremental import IncrementalCompiler, split_source
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.tools import CudaTools

PRELUDE = "#define uint unsigned int\n__device__ int seven = 7;\n"


def kernel(name: str, factor: int) -> str:
    """Return a kernel with loops and branches, and so with labels, and with shared memory."""
    return f"""extern "C" __global__ void __launch_bounds__(128) {name}(float* __restrict__ x, float* __restrict__ y) {{
  __shared__ float kept[128];
  kept[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < (int)x[0] * {factor}; ++i) {{
    if (x[i] > {factor}) sum += kept[(threadIdx.x + i) & 127] * {factor}; else sum -= y[i];
  }}
  y[threadIdx.x] = sum;
}}
"""


def source_of(**factors: int) -> str:
    declared = "".join(kernel(name, factor).partition(" {\n")[0] + ";\n" for name, factor in factors.items())
    return PRELUDE + declared + "".join(kernel(name, factor) for name, factor in factors.items())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The kernels that NVRTC was given, for each call."""
    calls: list[list[str]] = []

    def compiled(source: str, arch: str, tools: CudaTools) -> str:
        calls.append(list(split_source(source)[1]))
        return compile_to_ptx(source, arch, tools)

    monkeypatch.setattr(module, "compile_to_ptx", compiled)
    return calls


def test_a_source_in_parts():
    prelude, kernels = split_source(source_of(first=1, second=2))
    assert prelude == PRELUDE
    assert kernels == {"first": kernel("first", 1), "second": kernel("second", 2)}
    assert split_source("int nothing;") == ("int nothing;", {})


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("arch", ["sm_53", "sm_90"])
@pytest.mark.parametrize(
    ("then", "compiled"),
    [
        ({"a": 1, "b": 9, "c": 3}, ["b"]),
        ({"a": 7, "b": 2, "c": 3}, ["a"]),
        ({"a": 1, "b": 2, "c": 5}, ["c"]),
        ({"c": 3, "b": 8, "d": 4, "a": 1}, ["b", "d"]),
        ({"b": 2}, None),
        ({"x": 1, "y": 2}, ["x", "y"]),
    ],
    ids=["inner", "first", "last", "another order", "fewer", "all new"],
)
def test_like_the_whole(tools: CudaTools, asked: list[list[str]], arch: str, then: dict[str, int], compiled: list[str] | None):
    compiler = IncrementalCompiler(arch, tools)
    for factors in ({"a": 1, "b": 2, "c": 3}, then):
        assert compiler.compile(source_of(**factors)) == compile_to_ptx(source_of(**factors), arch, tools)
    assert asked == [["a", "b", "c"], *([compiled] if compiled else [])]


def test_a_prelude_that_changed(tools: CudaTools, asked: list[list[str]]):
    compiler = IncrementalCompiler("sm_53", tools)
    compiler.compile(source_of(a=1, b=2))
    other = source_of(a=1, b=2).replace("seven = 7", "seven = 8")
    assert compiler.compile(other) == compile_to_ptx(other, "sm_53", tools)
    assert asked == [["a", "b"], ["a", "b"]]


def test_a_variable_that_is_named_after_the_first_kernel(tools: CudaTools, asked: list[list[str]]):
    """As one of internal linkage is: what is shared differs, and the whole is compiled once more."""
    compiler = IncrementalCompiler("sm_53", tools)
    for factor in (2, 3):
        source = source_of(a=1, b=factor).replace(
            "__device__ int seven = 7;", "namespace traits { __device__ const int seven = 7; }"
        )
        assert compiler.compile(source) == compile_to_ptx(source, "sm_53", tools)
    assert asked[0] == asked[-1] == ["a", "b"]


def test_functions_that_kernels_share(tools: CudaTools, asked: list[list[str]]):
    """Then nothing is kept: each module is compiled as it is."""
    compiler = IncrementalCompiler("sm_53", tools)
    shared = "__device__ __noinline__ float doubled(float x) { return 2 * x; }\n"
    first, second = (
        PRELUDE + shared + source_of(a=1, b=factor)[len(PRELUDE) :].replace("= sum;", "= doubled(sum);") for factor in (2, 3)
    )
    for source in (first, second):
        assert compiler.compile(source) == compile_to_ptx(source, "sm_53", tools)
    assert asked == [["a", "b"], ["a", "b"]]
