"""Networks through the pipeline of a GPU: what is fused, and the right numbers, threads run one after the other on a CPU.

ENet's threads cannot: `test_gpu_fibers.py` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from enet_tvm.compiler import pipeline
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.passes.schedule_remaining import ScheduleRemaining
from enet_tvm.compiler.pipeline import (
    FLOAT32,
    Compiled,
    Numerics,
    compile_module,
    gpu_phases,
    launches_of,
    machine_phase,
)
from enet_tvm.errors import UserError
from enet_tvm.networks import SegNet
from enet_tvm.targets import load_target

TX1 = GpuUnit(2, 80)


@tvm.ir.transform.module_pass(opt_level=0, name="SerialThreads")
class SerialThreads:
    """Run the threads of every kernel of the templates one after the other."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        serial = mod.clone()
        for name, function in mod.functions_items():
            if isinstance(function, tvm.tirx.PrimFunc):
                serial.update_func(name, serial_threads(function))
        return serial


def emulated(
    network: nn.Module, x: torch.Tensor, unit: GpuUnit, *, labels: bool = False
) -> tuple[np.ndarray, tuple[Launch, ...]]:
    """Return what a GPU's kernels compute, and their launches; what no template covers is scheduled for the CPU."""
    target = load_target("native").to_tvm()
    mod = from_torch(network, tuple(x.shape))
    with target:
        phases = gpu_phases(unit, numerics=Numerics(labels=labels))
        for phase in phases:
            passes = [ScheduleRemaining(VectorUnit.of(target).lanes)] if phase.name == "schedule-remaining" else phase.passes
            after = [SerialThreads()] if phase.name == "lower-kernels" else []
            mod = tvm.transform.Sequential([*passes, *after])(mod)
        launches = launches_of(mod, phases)
        mod = tvm.transform.Sequential(machine_phase().passes)(mod)
        executable = tvm.compile(mod, target, relax_pipeline=None)
    return relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy())).numpy(), launches


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_segnet_says_what_pytorch_says(randomised):
    """Also where planes become odd, and unpooling is a launch of its own."""
    network = randomised(SegNet(7))
    x = torch.randn((1, 3, 40, 56), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).numpy()
    actual, launches = emulated(network, x, TX1)
    close(actual, expected)
    assert len(launches) == 36
    assert sum(launch.ops == ("max_unpool2d",) for launch in launches) == 5


def ends_in_doubling(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.last(torch.relu(net.first(x)))


def ends_plainly(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.first(net.wide(x))


@pytest.fixture
def doubling(network_of) -> nn.Module:
    """A network that ends as ENet does."""
    return network_of(ends_in_doubling, first=nn.Conv2d(3, 8, 3, padding=1), last=nn.ConvTranspose2d(8, 11, 2, 2))


@pytest.fixture
def plain(network_of) -> nn.Module:
    """A network that ends as SegNet does."""
    return network_of(ends_plainly, wide=nn.Conv2d(3, 3, 3, padding=1), first=nn.Conv2d(3, 5, 1))


def test_labels_out_of_the_last_transposed_convolution(doubling: nn.Module):
    x = torch.randn((2, 3, 10, 14), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = doubling(x).argmax(1).numpy()
    labels, launches = emulated(doubling, x, TX1, labels=True)
    assert (labels.dtype, labels.shape) == (np.uint8, (2, 20, 28))
    np.testing.assert_array_equal(labels, expected)
    assert [launch.ops[-1] for launch in launches] == ["relu", "argmax"]


def test_labels_of_a_network_that_ends_otherwise(plain: nn.Module):
    x = torch.randn((1, 3, 6, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = plain(x).argmax(1).numpy()
    labels, launches = emulated(plain, x, TX1, labels=True)
    np.testing.assert_array_equal(labels, expected)
    assert len(launches) <= 4


def build(
    network: nn.Module, shape: tuple[int, ...], name: str = "gtx-1080", numerics: Numerics = FLOAT32, **changes: object
) -> tuple[Compiled, list[str]]:
    """Return a network compiled for a GPU and the PTX of its last attempt."""
    spec = load_target(name)
    assert spec.gpu is not None
    gpu = spec.gpu.model_copy(update=changes)
    made: list[list[str]] = []
    inner = pipeline.device_compiler

    def spying(*arguments: str):
        context = inner(*arguments)

        class Spy:
            def __enter__(self) -> list[str]:
                made.append(context.__enter__())
                return made[-1]

            def __exit__(self, *error: object) -> bool | None:
                return context.__exit__(*error)

        return Spy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "device_compiler", spying)
        compiled = compile_module(from_torch(network, shape), spec.to_tvm(), gpu=gpu, numerics=numerics)
    return compiled, made[-1]


OTHERS: dict[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {
    "softmax": lambda net, x: torch.softmax(net.conv(x), 1),
    "resizing": lambda net, x: nn.functional.interpolate(net.conv(x), scale_factor=2, mode="bilinear"),
    "global pooling": lambda net, x: net.conv(x) * torch.sigmoid(net.gate(x.mean((2, 3), keepdim=True))),
    "groups": lambda net, x: net.conv(net.grouped(x)),
    "linear": lambda net, x: net.linear(net.conv(x).mean((2, 3))),
    "cumsum": lambda net, x: torch.cumsum(net.conv(x), 3),
    "sort": lambda net, x: torch.sort(net.conv(x), dim=1).values,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_what_no_template_covers_has_threads_too(tools: CudaTools, network_of, name: str):
    network = network_of(
        OTHERS[name],
        conv=nn.Conv2d(16, 16, 1),
        grouped=nn.Conv2d(16, 16, 3, padding=1, groups=4),
        gate=nn.Conv2d(16, 16, 1),
        linear=nn.Linear(16, 3),
    )
    compiled, made = build(network, (1, 16, 6, 9))
    assert len(compiled.launches) >= 2
    entries = pipeline.assemble(made[-1], "sm_61", tools)
    assert len(entries) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["doubling", "plain"])
def test_labels_in_device_code(tools: CudaTools, name: str, request: pytest.FixtureRequest):
    compiled, made = build(request.getfixturevalue(name), (1, 3, 16, 24), numerics=Numerics(labels=True))
    entries = pipeline.assemble(made[-1], "sm_61", tools)
    assert not any(kernel.spill_bytes or kernel.stack_bytes for kernel in entries)
    assert "argmax" in compiled.launches[-1].kernel or "cast" in compiled.launches[-1].kernel


@pytest.mark.usefixtures("tools")
def test_types_that_kernels_lack_are_refused(doubling: nn.Module):
    with pytest.raises(UserError, match=r"^kernels for GPUs have no bfloat16; leave --dtype out, or give --dtype float16$"):
        build(doubling, (1, 3, 16, 24), numerics=Numerics("bfloat16"))


@pytest.mark.slow
def test_kernels_that_spill_are_made_smaller(tools: CudaTools, network_of):
    """With 40 registers for each thread, 16 sums are too many: the second attempt has 8."""
    network = network_of(lambda net, x: torch.relu(net.conv(x)), conv=nn.Conv2d(16, 16, 3, padding=1))
    plenty, scarce = (build(network, (1, 16, 48, 64), max_registers=limit, multiprocessors=1)[1] for limit in (255, 40))
    assert len(plenty) == 1
    assert len(scarce) > 1
    first, last = (pipeline.assemble(ptx, "sm_61", tools)[0].registers for ptx in (plenty[-1], scarce[-1]))
    assert last <= 40 < first


@pytest.mark.slow
@pytest.mark.usefixtures("tools")
def test_the_same_device_code_twice(network_of):
    network = network_of(lambda net, x: torch.relu(net.conv(x)), conv=nn.Conv2d(4, 8, 3, padding=1))
    assert build(network, (1, 4, 16, 16))[1] == build(network, (1, 4, 16, 16))[1]


@pytest.mark.slow
@pytest.mark.usefixtures("tools")
def test_a_dump_of_the_phases(network_of, tmp_path: Path):
    spec = load_target("jetson-tx1")
    mod = from_torch(network_of(lambda net, x: net.conv(x), conv=nn.Conv2d(4, 8, 1)), (1, 4, 8, 8))
    compile_module(mod, spec.to_tvm(), tmp_path, gpu=spec.gpu)
    names = ["import", *(phase.name for phase in gpu_phases(TX1)), "virtual-machine"]
    assert [file.name for file in sorted(tmp_path.iterdir())] == [f"{i:02d}-{name}.py" for i, name in enumerate(names)]
    assert "block-layout" not in names


@pytest.mark.usefixtures("tools")
def test_an_error_of_the_device_compiler_comes_through_tvm(network_of):
    network = network_of(lambda net, x: net.conv(x), conv=nn.Conv2d(4, 8, 1))
    with pytest.raises(UserError, match=r"^NVRTC of CUDA 12 knows no architecture sm_42"):
        build(network, (1, 4, 8, 8), arch="sm_42")
