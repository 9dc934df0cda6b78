from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compiled import artifact_of, random_enet
from hypothesis import HealthCheck, settings
from suite import Suite

from enet_tvm import __version__
from enet_tvm.artifact import Manifest, write_artifact
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.version import stack_versions

if TYPE_CHECKING:
    from torch import nn

    from enet_tvm.compiler.cuda.tools import CudaTools

TINY_HEIGHT, TINY_WIDTH = 16, 24

# How long examples take to draw is the machine's affair: others run tests on it too.
settings.register_profile("whole", suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("whole"), max_examples=20)  # of `make test`; a hundred are the default
settings.load_profile("whole")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so would the programs that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Suite())


@dataclass(frozen=True)
class TinyArtifact:
    """A real artifact of a very small network: every input value doubled by one kernel, then a 1x1 convolution."""

    directory: Path
    weights: np.ndarray
    """Classes x 3."""

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.einsum("oc,nchw->nohw", self.weights.astype(np.float64), 2.0 * x)


def tiny_manifest(batch: int = 1, classes: int = 4) -> Manifest:
    versions = stack_versions()
    return Manifest.model_validate(
        {
            "network": "tiny",
            "classes": ["sky", "road", "tree", "car"][:classes],
            "palette": [[70, 130, 180], [128, 64, 128], [107, 142, 35], [0, 0, 142]][:classes],
            "input": {"shape": [batch, 3, TINY_HEIGHT, TINY_WIDTH], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
            "output": {"shape": [batch, classes, TINY_HEIGHT, TINY_WIDTH]},
            "target": {"name": "here", "triple": "", "mcpu": "", "architecture": architecture()},
            "versions": {
                "enet_tvm": __version__,
                "apache_tvm": versions["apache-tvm"],
                "apache_tvm_ffi": versions["apache-tvm-ffi"],
            },
            "hashes": {"weights": "0" * 64},
            "kernels": [
                {"name": "double", "ops": ["multiply"], "layers": ["double"]},
                {"name": "conv2d", "ops": ["conv2d"], "output_layout": {"shape": [batch, classes, TINY_HEIGHT, TINY_WIDTH]}},
            ],
            "kernel_count": 2,
            "command": "pytest",
        }
    )


def build_tiny(directory: Path, seed: int = 0, batch: int = 1) -> TinyArtifact:
    import tvm
    from tvm import relax, s_tir, te

    from enet_tvm.compiler.linking import host_linker

    shape = (batch, 3, TINY_HEIGHT, TINY_WIDTH)
    placeholder = te.placeholder(shape, "float32", name="x")
    compute = te.compute(shape, lambda *at: placeholder[at] * te.const(2, "float32"), name="y")
    schedule = s_tir.Schedule(te.create_prim_func([placeholder, compute]))
    schedule.parallel(schedule.get_loops(schedule.get_sblock("y"))[2])  # rows, so that the thread pool is used
    double = schedule.mod["main"].without_attr("global_symbol")

    weights = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            doubled = builder.emit(relax.call_tir(builder.add_func(double, "double"), (x,), relax.TensorType(shape, "float32")))
            logits = builder.emit(relax.op.nn.conv2d(doubled, relax.const(weights[:, :, None, None])))
            output = builder.emit_output(logits)
        builder.emit_func_output(output)
    executable = tvm.compile(builder.get(), target="llvm")
    write_artifact(directory, tiny_manifest(batch), lambda path: executable.export_library(str(path), fcompile=host_linker()))
    return TinyArtifact(directory, weights)


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> TinyArtifact:
    """Compiled for batches of one; not to be changed by a test."""
    return build_tiny(tmp_path_factory.mktemp("tiny") / "artifact")


@pytest.fixture(scope="session")
def tiny_artifact_of_two(tmp_path_factory: pytest.TempPathFactory) -> TinyArtifact:
    """Compiled for batches of two, with other weights; not to be changed by a test."""
    return build_tiny(tmp_path_factory.mktemp("tiny") / "artifact", seed=1, batch=2)


@pytest.fixture(scope="session")
def tools() -> CudaTools:
    """NVRTC and ptxas; what needs them is skipped without them."""
    from enet_tvm.compiler.cuda.tools import find_cuda_tools

    try:
        return find_cuda_tools()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def processor_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines for a GPU copy to this machine's processor, and compute there, all the same."""
    from enet_tvm.runtime import engine, gpu, queues

    monkeypatch.setattr(engine, "CUDA", 1)  # the processor's code in DLPack
    monkeypatch.setattr(engine, "load_cuda", lambda ffi: None)
    monkeypatch.setattr(engine, "DeviceMemory", lambda ffi, kind: gpu.DeviceMemory(ffi, "cpu"))
    monkeypatch.setattr(engine, "EventClock", queues.HostClock)
    monkeypatch.setattr(engine, "CudaQueue", queues.HostQueue)


@pytest.fixture
def spoilt_artifact(tiny_artifact: TinyArtifact, tmp_path: Path) -> Iterator[Path]:
    """A copy of the tiny artifact, to be damaged."""
    copy = tmp_path / "artifact"
    shutil.copytree(tiny_artifact.directory, copy)
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


@pytest.fixture(scope="session")
def emulated_device() -> Any:
    """An aarch64 device on this machine (tests/emulated/build_device.py); its times mean nothing."""
    from build_device import UnavailableError, emulated_device

    try:
        return emulated_device()
    except UnavailableError as error:
        pytest.skip(f"no emulated device: {error}")


@dataclass(frozen=True)
class CompiledENet:
    """ENet with random weights, compiled for this machine at a small size."""

    directory: Path
    weights: Path


@pytest.fixture(scope="session")
def compiled_enet() -> CompiledENet:
    """Not to be changed by a test."""
    from enet_tvm.compiler.compile import CompileRequest
    from enet_tvm.size import Size
    from enet_tvm.targets import load_target

    weights = random_enet()
    return CompiledENet(
        artifact_of(CompileRequest(Workload(weights, Size(64, 48), load_target("native")), command="pytest")), weights
    )


@pytest.fixture(scope="session")
def network_of() -> Callable[..., nn.Module]:
    """Makes ``network_of(lambda net, x: net.conv(x), conv=nn.Conv2d(...))`` a network, every value of which matters."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self, function: Callable[..., Any], layers: dict[str, nn.Module]) -> None:
            super().__init__()
            self.function = function
            for name, layer in layers.items():
                self.add_module(name, layer)

        def forward(self, x: torch.Tensor) -> Any:
            return self.function(self, x)

    def make(function: Callable[..., Any], **layers: nn.Module) -> nn.Module:
        return randomise(Network(function, layers))

    return make


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network random parameters and statistics, none of them neutral, and put it into eval mode."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(std=0.3, generator=generator)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.2, 0.4, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.weight[:, 0].numel()
                module.weight.normal_(std=(1.5 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(std=0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def randomised() -> Callable[..., nn.Module]:
    """See `randomise`."""
    return randomise


@pytest.fixture(scope="session")
def relax_main() -> Callable[..., Any]:
    """Makes ``relax_main(lambda b, x: b.emit(...), (1, 2, 4, 4))`` a module whose main computes that of its inputs."""
    from tvm import relax

    def make(body: Callable[..., Any], *shapes: tuple[int, ...], dtypes: tuple[str, ...] = ()) -> Any:
        builder = relax.BlockBuilder()
        kinds = (*dtypes, *["float32"] * (len(shapes) - len(dtypes)))
        inputs = [
            relax.Var(f"x{i}", relax.TensorType(shape, kind)) for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
        ]
        with builder.function("main", inputs):
            with builder.dataflow():
                output = builder.emit_output(body(builder, *inputs))
            builder.emit_func_output(output)
        return builder.get()

    return make


@pytest.fixture(scope="session")
def run_relax() -> Callable[..., Any]:
    """Makes ``run_relax(mod, *arrays, passes=(...))`` what main computes on this machine after these passes."""
    import tvm
    from quick_code import unoptimised
    from tvm import relax

    from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
    from enet_tvm.compiler.passes.schedule_remaining import ScheduleRemaining
    from enet_tvm.compiler.pipeline import machine_phase
    from enet_tvm.targets import load_target

    target = unoptimised(load_target("native").to_tvm())
    rest = [relax.transform.LegalizeOps(), ScheduleRemaining(VectorUnit.of(target).lanes), *machine_phase().passes]

    def arrays(value: Any) -> Any:
        return value.numpy() if isinstance(value, tvm.runtime.Tensor) else tuple(arrays(item) for item in value)

    def run(mod: Any, *inputs: np.ndarray, passes: Sequence[Any] = ()) -> Any:
        with target:
            executable = tvm.compile(tvm.transform.Sequential([*passes, *rest])(mod), target, relax_pipeline=None)
        machine = relax.VirtualMachine(executable, tvm.cpu())
        return arrays(machine["main"](*(tvm.runtime.tensor(x) for x in inputs)))

    return run
