"""What is looked at in a library's device code; the libraries are data linked by hand, the device code is real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from enet_tvm.compiler.cuda.device_code import ENTRY, device_code, inspect_device_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import with_version
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.linking import host_linker
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target
from enet_tvm.targets.spec import GpuSpec

SOURCE = """
extern "C" __global__ void copy_kernel(float* a) { a[threadIdx.x] = 1; }
extern "C" __global__ void shared_kernel(float* a) {
  __shared__ float s[256];
  s[threadIdx.x] = a[threadIdx.x];
  __syncthreads();
  a[threadIdx.x] = s[255 - threadIdx.x];
}
"""


@pytest.fixture
def library(tmp_path: Path) -> Callable[[bytes], Path]:
    """Makes ``library(data)`` a library with that packed into it, and other data around."""

    def make(data: bytes) -> Path:
        code, output = tmp_path / "made.c", tmp_path / "made.so"
        values = ",".join(map(str, b"before" + data + b"after"))
        code.write_text(f"const int other = 3; const unsigned char {ENTRY}[] = {{{values}}};")
        host_linker()(output, [str(code)])
        return output

    return make


@pytest.fixture(scope="session")
def ptx(tools: CudaTools) -> bytes:
    return with_version(compile_to_ptx(SOURCE, "sm_53", tools), "6.5").encode() + b"\0"


def gpu(**changes: object) -> GpuSpec:
    found = load_target("jetson-tx1").gpu
    assert found is not None
    return found.model_copy(update=changes)


def test_what_is_in_it(library, ptx: bytes):
    path = library(ptx)
    assert device_code(path).encode() == ptx[:-1]
    report = inspect_device_code(path, gpu())
    assert (report.arch, report.ptx) == ("sm_53", "6.5")
    assert [(kernel.name, kernel.shared_bytes) for kernel in report.kernels] == [("copy_kernel", 0), ("shared_kernel", 1024)]
    assert str(report).startswith("PTX 6.5 for sm_53 with 2 kernels of at most ")
    assert "no bytes of them spilled, 1024 bytes of shared memory" in str(report)


def test_source_text_instead(library):
    """What TVM exports, without a word, where its CUDA backend did not load."""
    with pytest.raises(ValueError, match="carries CUDA source text instead of device code"):
        device_code(library(SOURCE.encode()))


def test_nothing_at_all(library, tmp_path: Path):
    with pytest.raises(ValueError, match="carries no device code"):
        device_code(library(b"only weights"))
    code, output = tmp_path / "empty.c", tmp_path / "empty.so"
    code.write_text("int nothing;")
    host_linker()(output, [str(code)])
    with pytest.raises(ValueError, match="no data packed"):
        device_code(output)


def test_more_than_one_module(library, ptx: bytes):
    with pytest.raises(ValueError, match="more than one"):
        device_code(library(ptx + ptx))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"arch": "sm_61"}, "is for sm_53, and the GPU is sm_61"),
        ({"ptx": "6.4"}, "wants a driver that knows PTX 6.5, and the oldest one knows 6.4"),
        ({"max_registers": 3}, "_kernel takes .* registers per thread, and 3 are allowed"),
        (
            {"max_shared_memory_per_block": 1000},
            "shared_kernel takes 1024 bytes of shared memory per block",
        ),
    ],
)
def test_what_does_not_fit(library, ptx: bytes, limits: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        inspect_device_code(library(ptx), gpu(**limits))


def test_spilled_registers(library, tools: CudaTools):
    sums = " ".join(f"float s{i} = a[{i} * 1024 + t];" for i in range(100))
    uses = " ".join(f"a[{i} * 1024 + t] = s{i} * s{(i + 57) % 100} + s{(i + 31) % 100};" for i in range(100))
    head = 'extern "C" __global__ void __launch_bounds__(1024) k(volatile float* a) { int t = threadIdx.x;'
    code = with_version(compile_to_ptx(f"{head} {sums} {uses} }}", "sm_53", tools), "6.5")
    with pytest.raises(ValueError, match=r"k spills \d+ bytes of registers"):
        inspect_device_code(library(code.encode() + b"\0"), gpu())


def test_what_ptxas_rejects(library, ptx: bytes):
    with pytest.raises(UserError, match="ptxas rejects"):
        inspect_device_code(library(ptx.replace(b"st.global", b"st.nowhere")), gpu())
