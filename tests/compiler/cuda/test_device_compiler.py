from __future__ import annotations

import re

import pytest
import tvm
from cuda_network import kernel_source

from enet_tvm.compiler.cuda import device_compiler as module
from enet_tvm.compiler.cuda.device_compiler import c_names, compile_lean, device_compiler, kernel_ptx, without_headers
from enet_tvm.compiler.cuda.machine_code import read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import ptx_arch, ptx_version
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.conv2d import gpu_conv2d
from enet_tvm.compiler.kernels.gpu.tile import GpuTile
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.targets import load_target

CODE = 'extern "C" __global__ void k(float* layer#1_ptr) { layer#1_ptr[0] = 1; }'


def callback() -> object:
    return tvm.get_global_func("tvm_callback_cuda_compile")


@pytest.mark.usefixtures("tools")
def test_tvm_gets_text_that_ends_in_a_zero():
    with device_compiler("sm_53", "6.5") as made:
        binary = bytes(callback()(CODE))
    assert binary.endswith(b"\0")
    assert b"\0" not in binary[:-1]
    assert made == [binary[:-1].decode()]
    assert (ptx_arch(made[0]), ptx_version(made[0])) == ("sm_53", "6.5")


@pytest.mark.usefixtures("tools")
def test_tvms_own_compiler_comes_back(monkeypatch: pytest.MonkeyPatch):
    """Also after a failure: what else in this process uses TVM must not get another compiler."""
    calls: list[str] = []
    before = callback()
    tvm.register_global_func("tvm_callback_cuda_compile", lambda code: calls.append(str(code)) or b"", override=True)
    try:
        with pytest.raises(ZeroDivisionError), device_compiler("sm_53", "6.5"):
            1 / 0  # noqa: B018
        callback()("text")
        assert calls == ["text"]
    finally:
        tvm.register_global_func("tvm_callback_cuda_compile", before, override=True)


def test_without_the_tools_nothing_is_changed(monkeypatch: pytest.MonkeyPatch):
    def missing() -> CudaTools:
        raise LookupError("not here")

    monkeypatch.setattr(module, "find_cuda_tools", missing)
    with pytest.raises(LookupError, match="not here"), device_compiler("sm_53", "6.5"):
        pass


def test_a_kernel_alone_is_as_in_a_network(tools: CudaTools, monkeypatch: pytest.MonkeyPatch):
    """Without the headers, which NVRTC needs longer for than for the kernel."""
    target = load_target("jetson-tx1").to_tvm()
    spec = FusedConv2D((1, 8, 6, 40), (1, 8, 6, 40), (3, 3), (1, 1), (1, 1), (1, 1))
    kernel = gpu_conv2d(spec, GpuTile(2, 4, 32, 2, 2))
    with device_compiler("sm_53", "6.5", 16) as made, target:
        tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
    given: list[str] = []
    compile_to_ptx = module.compile_to_ptx
    monkeypatch.setattr(module, "compile_to_ptx", lambda source, *rest: given.append(source) or compile_to_ptx(source, *rest))
    alone = kernel_ptx(kernel, target, "sm_53")
    assert len(given) == 1
    assert "#include" not in given[0]
    whole, bare = (assembled(ptx, "sm_53", tools) for ptx in (made[0], alone))
    assert whole.resources == bare.resources
    assert read_machine_code(whole.cubins, "sm_53") == read_machine_code(bare.cubins, "sm_53")


@pytest.mark.slow
def test_a_trial_is_as_in_a_network(tools: CudaTools):
    """Also its limit of registers and its version; what it leaves out are constants that nobody reads."""
    target = load_target("jetson-tx1").to_tvm()
    spec = FusedConv2D((1, 8, 6, 40), (1, 8, 6, 40), (3, 3), (1, 1), (1, 1), (1, 1))
    module = tvm.IRModule({"main": gpu_conv2d(spec, GpuTile(2, 4, 32, 2, 2)).with_attr("global_symbol", "main")})
    ptx = []
    for trial in (False, True):
        with device_compiler("sm_53", "6.5", trial=trial) as made, target:
            tvm.compile(module, target)
        ptx += made
    network, alone = ptx
    assert "cuda3std" in network
    assert "cuda3std" not in alone
    assert network[network.index(".visible .entry") :] == alone[alone.index(".visible .entry") :]
    assert (ptx_version(network), ".maxnreg" in network) == (ptx_version(alone), True)


def test_halves_take_one_header(tools: CudaTools, monkeypatch: pytest.MonkeyPatch):
    """That of float16, which the long ones would bring along."""
    spec = FusedConv2D((1, 8, 6, 40), (1, 8, 6, 40), (1, 1), (1, 1), (0, 0), (1, 1))
    source = kernel_source(gpu_conv2d(spec, GpuTile(2, 4, 32, 2)))
    halves = "__device__ __forceinline__ float low(unsigned int a) { return __low2float(*(__half2*)&a); }\n"
    given: list[str] = []
    monkeypatch.setattr(module, "compile_to_ptx", lambda source, *rest: given.append(source) or compile_to_ptx(source, *rest))
    assert ptx_arch(compile_lean(source.replace('extern "C"', f'{halves}extern "C"', 1), "sm_53", tools)) == "sm_53"
    assert re.findall(r"#include.*", given[0]) == ["#include <cuda_fp16.h>"]
    assert ptx_arch(compile_lean(source, "sm_53", tools)) == "sm_53"
    assert "#include" not in given[1]
    assert len(given) == 2


@pytest.mark.slow
def test_what_needs_the_headers_gets_them(tools: CudaTools, monkeypatch: pytest.MonkeyPatch):
    target = load_target("jetson-tx1").to_tvm()
    spec = FusedConv2D((1, 8, 6, 40), (1, 8, 6, 40), (1, 1), (1, 1), (0, 0), (1, 1))
    monkeypatch.setattr(module, "without_headers", lambda source: without_headers(source).replace("float", "no_such_type"))
    assert ptx_arch(kernel_ptx(gpu_conv2d(spec, GpuTile(2, 4, 32, 2)), target, "sm_53")) == "sm_53"


def test_names():
    assert c_names("f(float* __restrict__ 2_ptr, float* 10__1_ptr) { 2_ptr[12] = a2_ptr[3] * 2.0f; }") == (
        "f(float* __restrict__ _2_ptr, float* _10__1_ptr) { _2_ptr[12] = a2_ptr[3] * 2.0f; }"
    )
    source = "#include <x>\n  #define uint unsigned\n#pragma unroll\nint lv4#1_ptr = a#2#3; // a # b"
    assert c_names(source) == "#include <x>\n  #define uint unsigned\n#pragma unroll\nint lv4__1_ptr = a__2__3; // a # b"
