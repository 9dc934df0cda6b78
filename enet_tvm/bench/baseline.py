"""ENet beside SegNet, the baseline of its paper: both through the same compiler, on the same threads, in one run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from enet_tvm.agreement import LOGIT_TOLERANCE, SEGNET
from enet_tvm.bench.machine.description import processor
from enet_tvm.bench.measure.latency import Latency, alternate
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.workload import Workload
from enet_tvm.evaluation.parity import reference_logits
from enet_tvm.networks import SegNet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.networks.summary import summarise
from enet_tvm.networks.table import NETWORKS
from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec
from enet_tvm.version import __version__, stack_versions

PAPER = {"faster": 18, "fewer_flops": 75, "fewer_parameters": 79}
"""Ratios of SegNet to ENet that the paper's abstract claims; the speed is the largest measured (640x360 on a Jetson TX1)."""

_ROUNDS = 10
"""Least number of calls of each network: one of SegNet takes seconds on a small machine."""


@dataclass(frozen=True)
class Side:
    """The figures of one network.

    Attributes
    ----------
    network : str
        Name of the network.
    weights : str
        Weights file, or "random": the time of a forward pass does not depend on the weights.
    classes : int
        Number of output channels.
    parameters, flops : int
        Number of parameters, and floating-point operations of a forward pass, as `enet_tvm.networks.summary` counts them.
    kernels : int
        Number of kernel launches of a forward pass.
    agreement : float
        Share of pixels with PyTorch's logits, on one random input.
    latency : Latency
        Times of a forward pass.
    """

    network: str
    weights: str
    classes: int
    parameters: int
    flops: int
    kernels: int
    agreement: float
    latency: Latency

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        return {
            "network": self.network,
            "weights": self.weights,
            "classes": self.classes,
            "parameters": self.parameters,
            "flops": self.flops,
            "kernels": self.kernels,
            "agreement": self.agreement,
            "latency": self.latency.to_dict(),
            "gflops_per_second": self.flops / self.latency.median / 1e9,
        }


@dataclass(frozen=True)
class BaselineComparison:
    """ENet and SegNet at one size.

    Attributes
    ----------
    size : Size
        Width and height of the input.
    threads : int
        Number of threads of each network.
    target : str
        Name of the target that both were compiled for.
    enet, segnet : Side
    """

    size: Size
    threads: int
    target: str
    enet: Side
    segnet: Side

    @property
    def passed(self) -> bool:
        """Whether both say what PyTorch says: else their speed is no result."""
        return min(self.enet.agreement, self.segnet.agreement) >= SEGNET

    @property
    def ratios(self) -> dict[str, float]:
        """SegNet's figures as multiples of ENet's, under the names of `PAPER`."""
        return {
            "faster": self.segnet.latency.median / self.enet.latency.median,
            "fewer_flops": self.segnet.flops / self.enet.flops,
            "fewer_parameters": self.segnet.parameters / self.enet.parameters,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, with what they were measured on."""
        return {
            "size": str(self.size),
            "threads": self.threads,
            "target": self.target,
            "passed": self.passed,
            "ratios": self.ratios,
            "paper": PAPER,
            "networks": [self.enet.to_dict(), self.segnet.to_dict()],
            "machine": {"processor": processor(), "platform": platform.platform()},
            "versions": {"enet-tvm": __version__, **stack_versions()},
        }


def random_segnet(info: WeightsInfo, path: Path) -> None:
    """Write SegNet with random weights for the classes and normalisation of other weights."""
    torch.manual_seed(0)
    network = SegNet(len(info.classes))
    save_network(network, WeightsInfo(network.name, info.classes, info.palette, info.mean, info.std), path)


def compare_with_segnet(
    weights: Path,
    segnet_weights: Path | None,
    size: Size,
    target: TargetSpec,
    threads: int,
    directory: Path,
    *,
    seconds: float = 20.0,
    report: Callable[[str], None] = lambda _: None,
) -> BaselineComparison:
    """Compile both networks, hold each against PyTorch, and time them in turns.

    Parameters
    ----------
    weights : Path
        Weights file of ENet.
    segnet_weights : Path or None
        Weights file of SegNet; None for random weights of as many classes.
    size : Size
        Width and height of the input; at least 32x32.
    target : TargetSpec
        Target to compile for; this machine must be able to run it.
    threads : int
        Number of threads of the compiled networks.
    directory : Path
        Directory for the artifacts.
    seconds : float
        Duration of the timing, warm-up aside; each network is called ten times at least.
    report : callable
        Called with a clause on each step.

    Raises
    ------
    UserError
        When weights, size or target do not serve.
    """
    NETWORKS["segnet"].require_size(size)
    files = {"ENet": weights, "SegNet": segnet_weights or directory / "segnet.safetensors"}
    if segnet_weights is None:
        random_segnet(read_info(weights), files["SegNet"])
    x = np.random.default_rng(0).standard_normal((1, 3, size.height, size.width), np.float32)
    segmenters: dict[str, Segmenter] = {}
    agreements: dict[str, float] = {}
    with ExitStack() as stack:
        for name, path in files.items():
            report(f"compiling {name} for {size}")
            artifact = directory / f"{name}-{size}"
            compile_artifact(CompileRequest(Workload(path, size, target, threads), command="enet-tvm bench segnet"), artifact)
            segmenters[name] = stack.enter_context(Segmenter.load(artifact, threads, adaptive=False))
            report(f"holding {name} against PyTorch")
            agreements[name] = agreement(segmenters[name].forward(x), reference_logits(load_network(path), x))
        report("timing both in turns")
        calls = {name: _call(segmenter, x) for name, segmenter in segmenters.items()}
        latencies = alternate(calls, min_rounds=_ROUNDS, seconds=seconds)
        sides = []
        for name, path in files.items():
            total = summarise(load_network(path), size).total
            manifest = segmenters[name].manifest
            random = name == "SegNet" and segnet_weights is None
            sides.append(
                Side(
                    network=name,
                    weights="random" if random else str(path),
                    classes=len(manifest.classes),
                    parameters=total.parameters,
                    flops=total.flops,
                    kernels=manifest.kernel_count,
                    agreement=agreements[name],
                    latency=latencies[name],
                )
            )
    return BaselineComparison(size, threads, target.name, *sides)


def agreement(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the share of pixels whose logits (N x C x H x W) are all those expected, within `LOGIT_TOLERANCE`."""
    close = np.abs(logits - expected) <= LOGIT_TOLERANCE * np.abs(expected).max()
    return float(close.all(axis=1).mean())


def _call(segmenter: Segmenter, x: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    return lambda: segmenter.forward(x)
