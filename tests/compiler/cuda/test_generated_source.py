"""The CUDA C++ that NVRTC is given, compiled as C++ and run thread after thread: right numbers after TVM's code generator, too.

The tests of the templates run their TensorIR through LLVM. What only the code generator for CUDA makes of it, such as vectors
of two and four values and their epilogue, is looked at here.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F

from enet_tvm.compiler.cuda import device_compiler as module
from enet_tvm.compiler.cuda.device_compiler import device_compiler
from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, gpu_conv2d, pack_gpu_vector, pack_gpu_weight
from enet_tvm.compiler.kernels.gpu.initial_block import gpu_initial_block, initial_tiles, pack_gpu_initial_weight
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window, gpu_max_unpool2d
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.kernels.gpu.transposed import gpu_conv2d_transpose, pack_transposed_weight
from enet_tvm.compiler.linking import zig_linker
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.targets import load_target

UNIT = GpuUnit(1, 80)

# What of CUDA the generated code of the templates is written in.
CUDA_IN_CPP = """
typedef unsigned char uint8_t;
typedef long int64_t;
#define __global__
#define __launch_bounds__(threads)
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
struct Index { int x, y, z; };
static Index blockIdx, threadIdx;
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools) -> Callable[..., dict[str, np.ndarray]]:
    """Makes ``run(kernel, data=..., out=...)`` the arrays after a launch; outputs are given as arrays to be overwritten."""
    pytest.importorskip("ziglang")

    def launch(kernel: tvm.tirx.PrimFunc, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        sources: list[str] = []
        inner = module.compile_to_ptx
        monkeypatch.setattr(module, "compile_to_ptx", lambda *given: sources.append(given[0]) or inner(*given))
        target = load_target("gtx-1080").to_tvm()
        with device_compiler("sm_61", "6.5"), target:
            tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
        source = sources[-1]
        extents = {}
        body = kernel.body
        while isinstance(body, tvm.tirx.For) and body.kind == tvm.tirx.ForKind.THREAD_BINDING:
            extents[str(body.thread_binding.thread_tag)] = int(body.extent)
            body = body.body
        name, signature = re.search(r'extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(([^)]*)\) \{', source).groups()
        parameters = [part.replace("__restrict__", "").split() for part in signature.split(",")]
        names = [words[-1].removesuffix("_ptr") for words in parameters]
        assert set(names) == set(arrays)
        call = ", ".join(f"({' '.join(words[:-1])})arguments[{i}]" for i, words in enumerate(parameters))
        loops = "".join(f"for ({tag} = 0; {tag} < {extent}; ++{tag})\n" for tag, extent in extents.items())
        code = f'{CUDA_IN_CPP}{source}\nextern "C" void launch(void** arguments) {{\n{loops}{name}({call});\n}}\n'
        for header in ("cuda.h", "cstdint", "type_traits"):
            (tmp_path / header).touch()  # So that no C++ library is needed, which Zig would build first, for minutes.
        file, library = tmp_path / f"{name}.cpp", tmp_path / f"{name}{len(list(tmp_path.iterdir()))}.so"
        file.write_text(code)
        options = ["-O1", "-w", f"-I{tmp_path}", "-nostdinc++", "-nostdlib++", "-fno-exceptions", "-fno-sanitize=undefined"]
        zig_linker(platform.machine())(library, [str(file)], options)
        pointers = (ctypes.c_void_p * len(names))(*(arrays[n].ctypes.data for n in names))
        ctypes.CDLL(str(library)).launch(pointers)
        return arrays

    return launch


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return whole numbers at an address that vectors can be loaded from, as a GPU's allocations are."""
    values = rng.integers(-3, 4, shape).astype(np.float32)
    memory = np.zeros(values.size + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    aligned = memory[start : start + values.size].reshape(shape)
    aligned[...] = values
    return aligned


def copied(values: np.ndarray) -> np.ndarray:
    aligned = whole(np.random.default_rng(0), *values.shape)
    aligned[...] = values
    return aligned


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(run, transposed: bool):
    """Eleven channels, which no tile divides, and a plane that no block does."""
    rng = np.random.default_rng(1)
    out_shape = (1, 11, 10, 14) if transposed else (1, 11, 5, 7)
    attrs = FusedConv2D(
        (1, 6, 5, 7), out_shape, (3, 3), *([((2, 2)), (1, 1), (1, 1), True] if transposed else [(1, 1), (1, 1), (1, 1)]),
        activation="prelu",
    )  # fmt: skip
    data, bias, slope = whole(rng, 1, 6, 5, 7), whole(rng, 11), whole(rng, 11) / 4
    weight = whole(rng, *((6, 11) if transposed else (11, 6)), 3, 3)
    x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
    if transposed:
        tile = convolution_tile(attrs, UNIT)
        kernel, packed = gpu_conv2d_transpose(attrs, tile), pack_transposed_weight(weight, attrs, tile)
        expected = F.conv_transpose2d(x, w, b, 2, 1, 1)
    else:
        tile = convolution_tile(attrs, UNIT)
        kernel, packed = gpu_conv2d(attrs, tile), pack_gpu_weight(weight, tile)
        expected = F.conv2d(x, w, b, padding=1)
    arrays = run(
        kernel,
        data=data,
        weight=copied(packed),
        bias=copied(pack_gpu_vector(bias, tile)),
        slope=copied(pack_gpu_vector(slope, tile)),
        out=copied(np.full(out_shape, np.nan, np.float32)),
    )
    np.testing.assert_array_equal(arrays["out"], F.prelu(expected, torch.from_numpy(slope)).numpy())


def test_unpooling_in_an_epilogue(run):
    rng = np.random.default_rng(2)
    attrs = FusedConv2D(
        (1, 4, 6, 8), (1, 16, 6, 8), (1, 1), (1, 1), (0, 0), (1, 1), activation="relu", residual="unpool", residual_channels=16
    )
    tile = convolution_tile(attrs, UNIT)
    data, weight, bias = whole(rng, 1, 4, 6, 8), whole(rng, 16, 4, 1, 1), whole(rng, 16)
    pooled = torch.from_numpy(rng.permutation(16 * 48).astype(np.float32)).reshape(1, 16, 6, 8)
    maxima, places = F.max_pool2d(pooled, 2, return_indices=True)
    expected = F.conv2d(*(torch.from_numpy(a) for a in (data, weight, bias))) + F.max_unpool2d(maxima, places, 2)
    arrays = run(
        gpu_conv2d(attrs, tile),
        data=data,
        weight=copied(pack_gpu_weight(weight, tile)),
        bias=copied(pack_gpu_vector(bias, tile)),
        residual=copied(maxima.numpy()),
        window=(places // 8 % 2 * 2 + places % 2).numpy().astype(np.uint8),
        out=copied(np.full((1, 16, 6, 8), np.nan, np.float32)),
    )
    np.testing.assert_array_equal(arrays["out"], torch.relu(expected).numpy())


def test_the_initial_block(run):
    rng = np.random.default_rng(3)
    data, weight, bias = whole(rng, 1, 3, 10, 12), whole(rng, 13, 3, 3, 3), whole(rng, 13)
    scale, shift, slope = whole(rng, 3), whole(rng, 3), whole(rng, 16) / 4
    x = torch.from_numpy(data)
    pooled = F.max_pool2d(x, 2) * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    convolved = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), 2, 1)
    arrays = run(
        gpu_initial_block((1, 3, 10, 12), 13),
        data=data,
        weight=copied(pack_gpu_initial_weight(weight, 16, initial_tiles(16)[0])),
        bias=copied(np.concatenate([bias, np.zeros(3, np.float32)])),
        scale=scale,
        shift=shift,
        slope=copied(slope),
        out=copied(np.full((1, 16, 5, 6), np.nan, np.float32)),
    )
    expected = F.prelu(torch.cat([convolved, pooled], 1), torch.from_numpy(slope))
    np.testing.assert_array_equal(arrays["out"], expected.numpy())


def test_pooling_and_back(run):
    x = whole(np.random.default_rng(4), 1, 3, 7, 8)
    maxima, places = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    out, window = np.zeros((1, 3, 3, 4), np.float32), np.full((1, 3, 3, 4), 9, np.uint8)
    run(gpu_max_pool2d_with_window((1, 3, 7, 8)), data=x, out=out, window=window)
    np.testing.assert_array_equal(out, maxima.numpy())
    np.testing.assert_array_equal(window, (places // 8 % 2 * 2 + places % 8 % 2).numpy())
    spread = np.full((1, 3, 7, 8), np.nan, np.float32)
    run(gpu_max_unpool2d((1, 3, 3, 4), (7, 8)), data=out, window=window, out=spread)
    np.testing.assert_array_equal(spread, F.max_unpool2d(maxima, places, 2, output_size=(7, 8)).numpy())
