"""Calibrating the model of a GPU: microbenchmarks built, sent to the GPU and timed as tuning does with kernels.

The time between two launches is that of two networks of tiny layers, one of them longer: each is a frame as users run it, one
captured graph, so what a layer more takes is its kernel and the time before it. The kernel's is taken from the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.cuda.calibration import Calibration, constants_of
from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.compiler.kernels.gpu.microbenchmarks import Benchmark, microbenchmarks
from enet_tvm.compiler.roofline import predict_compiled
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.networks import NetworkInMemory, WeightsInfo
from enet_tvm.runtime.gpu import gpu_multiprocessors, gpu_name
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.measure import Fleet, Measurer, Timing
from enet_tvm.tuning.network import Here, Place, There
from enet_tvm.tuning.tasks import alone
from enet_tvm.tuning.trials import arguments_of
from enet_tvm.tuning.where import Gpu, gpu_there, missing_gpu
from enet_tvm.version import __version__

if TYPE_CHECKING:
    from enet_tvm.compiler.pipeline import Compiled

_LAYERS = {"short": 8, "long": 40}
_SIZE = Size(16, 8)
_COMPARISON_SECONDS = 2.0
_LEAST_LAUNCH_US = 0.1
"""Where the model makes more of the tiny kernels than they take, time between them."""


def calibrate_gpu(
    target: TargetSpec,
    fleet: Fleet | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    timing: Timing | None = None,
) -> Calibration:
    """Measure the constants of the model of a target's GPU.

    Parameters
    ----------
    target : TargetSpec
        Target with a GPU, which is this machine's or that of the devices.
    fleet : Fleet, optional
        Devices behind a tracker; by default this machine.
    note : callable
        Called with a sentence on each step.
    timing : Timing, optional
        Repetitions and limits of timing a kernel.

    Raises
    ------
    UserError
        When there is no such GPU, too little is known of it, it is lost, or a kernel cannot be timed.
    """
    known = Chip.of(target)
    found = _gpu_here(target) if fleet is None else gpu_there(target, fleet)
    chip = replace(known, multiprocessors=found.multiprocessors)
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as folder:
        note(f"timing microbenchmarks on {found.name}, {found.multiprocessors} multiprocessors")
        rates = _rates(target, microbenchmarks(chip.multiprocessors, chip.multiprocessor), fleet, timing, Path(folder))
        without = _calibration(target, found, rates, chip, 1.0)
        note("timing networks of tiny layers as graphs")
        place: Place = Here(1, found.name) if fleet is None else There(1, fleet, found.name)
        launch_us = _launch_us(target, without.applied(chip), place, Path(folder))
    return _calibration(target, found, rates, chip, launch_us)


def _calibration(target: TargetSpec, found: Gpu, rates: Mapping[str, float], chip: Chip, launch_us: float) -> Calibration:
    return Calibration(
        target=target.name,
        arch=chip.arch,
        gpu=found.name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        enet_tvm=__version__,
        multiprocessors=chip.multiprocessors,
        constants=constants_of(rates, launch_us, chip),
    )


def _gpu_here(target: TargetSpec) -> Gpu:
    assert target.gpu is not None
    if (why := missing_gpu(target)) is not None:
        raise UserError(f"{why}; calibrate on a machine with the GPU, or give --tracker HOST:PORT")
    return Gpu(gpu_name() or target.gpu.arch, target.gpu.arch, gpu_multiprocessors() or target.gpu.multiprocessors)


def _rates(
    target: TargetSpec, benchmarks: Mapping[str, Benchmark], fleet: Fleet | None, timing: Timing | None, folder: Path
) -> dict[str, float]:
    """Return how much of its work each benchmark does in a second."""
    modules = [alone(each.kernel) for each in benchmarks.values()]
    measurer = Measurer(
        target.to_tvm(), target.triple, target.toolchain, 1, folder / "libraries", fleet, timing, gpu=target.gpu
    )
    try:
        libraries = []
        for name, built in zip(benchmarks, measurer.build(modules), strict=True):
            if not isinstance(built, Path):
                raise UserError(f"the microbenchmark '{name}' {built.reason}; install enet-tvm again with the extra cuda")
            libraries.append(built)
        outcomes = measurer.run(libraries, [arguments_of(module) for module in modules])
    finally:
        measurer.close()
    rates = {}
    for (name, benchmark), outcome in zip(benchmarks.items(), outcomes, strict=True):
        if not outcome.seconds:
            raise UserError(f"the microbenchmark '{name}' cannot be timed: {outcome.reason}; free the GPU and calibrate again")
        rates[name] = benchmark.work / min(outcome.seconds)
    return rates


def _launch_us(target: TargetSpec, chip: Chip, place: Place, folder: Path) -> float:
    """Return the microseconds between two kernels of a graph."""
    kernels: dict[str, tuple[int, float]] = {}

    def take(name: str) -> Callable[[Compiled], None]:
        def counted(compiled: Compiled) -> None:
            predictions = predict_compiled(compiled, chip)
            kernels[name] = len(predictions), sum(kernel.bounds.longest for kernel in predictions)

        return counted

    for name, layers in _LAYERS.items():
        request = CompileRequest(Workload(_tiny_layers(layers), _SIZE, target), untuned=True)
        compile_artifact(request, folder / name, made=take(name))
    seconds = place.compare({name: folder / name for name in _LAYERS}, _COMPARISON_SECONDS)
    launches, modelled = (long - short for short, long in zip(kernels["short"], kernels["long"], strict=True))
    return max(_LEAST_LAUNCH_US, (1e6 * (seconds["long"] - seconds["short"]) - modelled) / launches)


def _tiny_layers(count: int) -> NetworkInMemory:
    """Return a network of so many equal layers, each of which is a kernel, and which a GPU computes in no time."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Of 1x1, two or three would be one kernel (`enet_tvm.compiler.passes.fuse_bottlenecks`).
        layers = [layer for _ in range(count) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
        network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), *layers, nn.Conv2d(8, 2, 1)).eval()
    info = WeightsInfo("layers", ("a", "b"), ((0, 0, 0), (255, 255, 255)), (0.5,) * 3, (0.5,) * 3)
    return NetworkInMemory(network, info)
