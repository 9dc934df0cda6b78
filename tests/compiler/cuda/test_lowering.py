"""Kernels that were lowered before are what they would be if lowered anew, byte for byte in the code that is made of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from cuda_network import recorded_sources
from tvm.tirx import compilation_pipeline as pipelines

from enet_tvm.compiler.cuda.lowering import IncrementalLowering
from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, gpu_conv2d
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.targets import load_target

Compile = Callable[..., tuple[str, str]]


def convolution(channels: int, registers: int = 128) -> tvm.tirx.PrimFunc:
    spec = FusedConv2D((1, channels, 9, 14), (1, 16, 9, 14), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    return gpu_conv2d(spec, convolution_tile(spec, GpuUnit(2, registers)))


KERNELS = {"first": convolution(4), "pool": gpu_max_pool2d_with_window((1, 4, 8, 12)), "last": convolution(8)}


def compiled(kernels: dict[str, tvm.tirx.PrimFunc], tir_pipeline: str) -> tuple[str, str]:
    """Return the CUDA C++ of the kernels, and the LLVM IR of what calls them."""
    target = load_target("gtx-1080").to_tvm()
    with recorded_sources() as sources, target:
        module = {name: kernel.with_attr("global_symbol", name) for name, kernel in kernels.items()}
        made = tvm.compile(tvm.IRModule(module), target, tir_pipeline=tir_pipeline)
    return sources[-1], made.mod.inspect_source()


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The functions that TVM's own pipeline was given, for each call."""
    calls: list[list[str]] = []
    make = pipelines.PIPELINE_MAP["s_tir"]

    def watched() -> tuple[tvm.transform.Pass, object, object]:
        lower, *rest = make()

        @tvm.transform.module_pass(opt_level=0, name="Watched")
        def watch(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
            calls.append(sorted(str(var.name_hint) for var in mod.functions))
            return lower(mod)

        return watch, *rest

    monkeypatch.setitem(pipelines.PIPELINE_MAP, "s_tir", watched)
    return calls


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("then", "anew"),
    [
        ({"pool": gpu_max_pool2d_with_window((1, 4, 10, 12)), "last": convolution(12)}, ["last", "pool"]),
        # One is lowered beside another, so that it is not the only one, which TVM would call the entry.
        ({"last": convolution(12)}, ["first", "last"]),
        ({}, None),
    ],
    ids=["two others", "another one", "the same"],
)
def test_like_anew(lowered: list[list[str]], then: dict[str, tvm.tirx.PrimFunc], anew: list[str] | None):
    later = KERNELS | then
    with IncrementalLowering().pipeline() as name:
        made = [compiled(kernels, name) for kernels in (KERNELS, later)]
    assert lowered == [sorted(KERNELS), *([anew] if anew else [])]
    assert made == [compiled(kernels, "default") for kernels in (KERNELS, later)]
    assert (made[0] == made[1]) == (not then)


def test_one_alone_is_not_what_it_is_among_others(lowered: list[list[str]]):
    """TVM marks the only function of a module, so what was made of it is not taken for a module of several, nor back."""
    alone = {"first": KERNELS["first"]}
    with IncrementalLowering().pipeline() as name:
        made = [compiled(kernels, name) for kernels in (alone, KERNELS, alone)]
    assert lowered == [["first"], sorted(KERNELS)]
    assert made == [compiled(kernels, "default") for kernels in (alone, KERNELS, alone)]


def test_the_pipeline_is_known_within_its_context_alone():
    with IncrementalLowering().pipeline() as name:
        assert name in pipelines.PIPELINE_MAP
    assert name not in pipelines.PIPELINE_MAP
