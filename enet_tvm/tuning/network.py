"""The whole network while it is tuned: the time of each launch, the time of a forward pass, and parity with PyTorch.

A `Place` is where these are from: this machine (`Here`), devices behind a tracker (`There`), or, where there is no GPU to run
on, the model of one (`enet_tvm.tuning.modelled`), or of an ARM processor (`enet_tvm.tuning.simulated`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enet_tvm.agreement import PICTURES, UNTUNED
from enet_tvm.artifact import Manifest, read_manifest
from enet_tvm.bench.machine.description import processor
from enet_tvm.bench.measure.latency import alternate
from enet_tvm.bench.runners.base import PassTimes
from enet_tvm.compiler.tuning_log import Parity
from enet_tvm.evaluation.inputs import open_inputs
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.protocol import Capability
from enet_tvm.tuning.measure import Fleet

if TYPE_CHECKING:
    from enet_tvm.compiler.pipeline import Compiled
    from enet_tvm.rpc.session import DeviceSession

_PICTURES = 2


class Place(ABC):
    """Where the times of a network come from while it is tuned."""

    modelled: ClassVar[bool] = False
    """Whether they are a model's, and the network does not run."""
    simulated: ClassVar[bool] = False
    """Whether that model is of what an emulated processor executed."""
    units: ClassVar[tuple[str, str]] = ("ms", "us")
    """What a thousandth and a millionth of the seconds are called."""

    @property
    @abstractmethod
    def processor(self) -> str:
        """Name of the processor; sessions that share measurements agree in it."""

    def take(self, artifact: Path, compiled: Compiled) -> None:  # noqa: B027
        """Be shown what an artifact was compiled to, before anything is asked of it."""

    @abstractmethod
    def launch_seconds(self, artifact: Path) -> tuple[list[float], float]:
        """Return the median seconds of each launch of a forward pass, and of the whole of it."""

    @abstractmethod
    def compare(self, artifacts: Mapping[str, Path], seconds: float) -> dict[str, float]:
        """Return the median seconds of a forward pass of each artifact; where they run, in turns, for so many seconds."""

    def remark(self, artifacts: Mapping[str, Path]) -> str:
        """Return what else is to be said of artifacts that were compared, in a sentence; empty for nothing."""
        return ""

    def close(self) -> None:  # noqa: B027
        """End what works for it."""

    @abstractmethod
    def parity(self, artifact: Path, untuned: Path, weights: Path) -> tuple[Parity | None, bool]:
        """Compare an artifact with PyTorch; None where it does not run. The second value says whether it may be kept."""


class RunningPlace(Place):
    """The machine, or kind of device, that a network runs on while it is tuned.

    Parameters
    ----------
    threads : int
        Number of threads of a forward pass.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    @contextlib.contextmanager
    def _loaded(self, artifacts: Mapping[str, Path]) -> Iterator[dict[str, Callable[[np.ndarray], PassTimes | None]]]:
        """Load artifacts and yield, by name, functions that run a forward pass of each on an input (N x 3 x H x W float32)."""

    def compare(self, artifacts: Mapping[str, Path], seconds: float) -> dict[str, float]:
        """Return the median seconds of a forward pass of each artifact, measured in turns."""
        shape = _manifest(artifacts).input.shape
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        with self._loaded(artifacts) as passes:
            functions = {name: functools.partial(call, x) for name, call in passes.items()}
            found = alternate(functions, min_rounds=5, seconds=seconds)
        return {name: latency.median for name, latency in found.items()}

    @abstractmethod
    def segmenter(self, artifact: Path) -> Segmenter:
        """Return a loaded artifact."""

    def parity(self, artifact: Path, untuned: Path, weights: Path) -> tuple[Parity, bool]:
        """Compare an artifact with PyTorch on drawn streets; the second value says whether they agree.

        The accuracy that shorter numbers cost on such pictures is not for tuning to judge: with them the limit is that of the
        untuned network, whose sums are rounded in another order, less `UNTUNED`.
        """
        parity, agrees = self._parity(artifact, weights)
        if not agrees and read_manifest(artifact).dtype != "float32" and math.isfinite(parity.max_abs_logit_diff):
            bar, _ = self._parity(untuned, weights)
            agrees = parity.label_agreement >= bar.label_agreement - UNTUNED
        return parity, agrees

    def _parity(self, artifact: Path, weights: Path) -> tuple[Parity, bool]:
        # It imports PyTorch, without which workers that predict kernels start; they import this module.
        from enet_tvm.evaluation.parity import load_reference, verify

        with self.segmenter(artifact) as segmenter:
            inputs = open_inputs(segmenter, synthetic=_PICTURES)
            report = verify(segmenter, load_reference(segmenter, weights), inputs)
        parity = Parity(
            pictures=report.pictures,
            inputs=inputs.description,
            label_agreement=report.label_agreement,
            max_abs_logit_diff=report.max_abs_logit_diff or 0.0,
        )
        return parity, report.passes(PICTURES[segmenter.manifest.dtype])


class Here(RunningPlace):
    """The machine that this process runs on.

    Parameters
    ----------
    threads : int
        Number of threads of a forward pass.
    gpu : str or None
        Name of its GPU, for a network that runs there.
    """

    def __init__(self, threads: int, gpu: str | None = None) -> None:
        super().__init__(threads)
        self._gpu = gpu

    @property
    def processor(self) -> str:
        """Name of the GPU that the network runs on, else of the processor."""
        return self._gpu or processor()

    def launch_seconds(self, artifact: Path, passes: int = 10) -> tuple[list[float], float]:
        """Return the median seconds of each launch in instrumented passes, and of whole passes."""
        with Segmenter.load(artifact, self.threads, adaptive=False) as segmenter:
            x = np.random.default_rng(0).standard_normal(segmenter.manifest.input.shape, np.float32)
            launches = _launch_medians(segmenter, x, passes)
            whole = alternate({"whole": functools.partial(_pass, segmenter, x)}, min_rounds=passes, seconds=0.5)["whole"].median
        return launches, whole

    @contextlib.contextmanager
    def _loaded(self, artifacts: Mapping[str, Path]) -> Iterator[dict[str, Callable[[np.ndarray], PassTimes | None]]]:
        with contextlib.ExitStack() as stack:
            loaded = {
                name: stack.enter_context(Segmenter.load(path, self.threads, adaptive=False))
                for name, path in artifacts.items()
            }

            yield {name: functools.partial(_pass, segmenter) for name, segmenter in loaded.items()}

    def segmenter(self, artifact: Path) -> Segmenter:
        """Return a loaded artifact."""
        return Segmenter.load(artifact, self.threads, adaptive=False)


class There(RunningPlace):
    """A device behind a tracker; each visit claims one of its kind.

    Parameters
    ----------
    threads : int
        Number of threads of a forward pass.
    fleet : Fleet
        The devices.
    gpu : str or None
        Name of their GPU, for a network that runs there.
    session_seconds : float
        Seconds after which a visit ends.
    """

    def __init__(self, threads: int, fleet: Fleet, gpu: str | None = None, session_seconds: float = 1800.0) -> None:
        super().__init__(threads)
        self.fleet = fleet
        self._gpu = gpu
        self._session_seconds = session_seconds

    def _open(self) -> DeviceSession:
        from enet_tvm.rpc.session import open_session

        return open_session(self.fleet.tracker, self.fleet.key, wait=120.0, session_seconds=self._session_seconds)

    @property
    def processor(self) -> str:
        """Name of the GPU that the network runs on, else of the processor, or what the device calls itself."""
        if self._gpu is not None:
            return self._gpu
        with self._open() as session:
            return str(session.facts().get("model") or self.fleet.key)

    def launch_seconds(self, artifact: Path, passes: int = 3) -> tuple[list[float], float]:
        """Return the median seconds of each launch in instrumented passes, and of whole passes.

        On a server that cannot time kernels, the whole time is divided by the arithmetic of each launch.
        """
        whole = self.compare({"whole": artifact}, 0.0)["whole"]
        manifest = read_manifest(artifact)
        with self.segmenter(artifact) as segmenter:
            if Capability.KERNEL_TIMES in segmenter.capabilities:
                x = np.random.default_rng(0).standard_normal(manifest.input.shape, np.float32)
                return _launch_medians(segmenter, x, passes), whole
        flops = np.array([kernel.flops for kernel in manifest.kernels], float)
        return [float(seconds) for seconds in whole * flops / max(flops.sum(), 1.0)], whole

    @contextlib.contextmanager
    def _loaded(self, artifacts: Mapping[str, Path]) -> Iterator[dict[str, Callable[[np.ndarray], PassTimes | None]]]:
        from enet_tvm.rpc.engine import RemoteEngine

        with self._open() as session:
            engines = {name: RemoteEngine(session, path, read_manifest(path), self.threads) for name, path in artifacts.items()}

            def caller(engine: RemoteEngine) -> Callable[[np.ndarray], PassTimes]:
                def call(x: np.ndarray) -> PassTimes:
                    engine.run(x)
                    assert engine.last is not None
                    return PassTimes(engine.last.device)

                return call

            try:
                yield {name: caller(engine) for name, engine in engines.items()}
            finally:
                for engine in engines.values():
                    engine.close()

    def segmenter(self, artifact: Path) -> Segmenter:
        """Return an artifact loaded on a device."""
        from enet_tvm.rpc.engine import DeviceSegmenter

        return DeviceSegmenter.open(
            artifact, self.fleet.tracker, self.fleet.key, threads=self.threads, session_seconds=self._session_seconds
        )


def _pass(segmenter: Segmenter, x: np.ndarray) -> PassTimes | None:
    """Run a forward pass; on a GPU, return how long the network took there, the transfers left out."""
    if segmenter.manifest.target.device == "cpu":
        segmenter.forward(x)
        return None
    return PassTimes(segmenter.forward_timed(x)[1])


def _launch_medians(segmenter: Segmenter, x: np.ndarray, passes: int) -> list[float]:
    timed = segmenter.time_kernels(x, passes)
    return [float(seconds) for seconds in np.median([[seconds for _, seconds in one] for one in timed], axis=0)]


def _manifest(artifacts: Mapping[str, Path]) -> Manifest:
    return read_manifest(next(iter(artifacts.values())))
