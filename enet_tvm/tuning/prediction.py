"""What tuning without the device has in common, whatever model says the times: kernels go through workers that predict them.

`PredictedKernels` stands in for `enet_tvm.tuning.measure.Measurer`, `PredictedPlace` for the machine that a network runs on.
`enet_tvm.tuning.modelled` is the model of a GPU, `enet_tvm.tuning.simulated` that of an ARM processor.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from enet_tvm.compiler.tuning_log import Parity
from enet_tvm.files import read_json, write_json
from enet_tvm.machine import default_threads
from enet_tvm.tuning.measure import Outcome, builder_pool, built_or_failed
from enet_tvm.tuning.metaschedule import lean_workers
from enet_tvm.tuning.network import Place

if TYPE_CHECKING:
    import tvm

    from enet_tvm.tuning.trials import KernelTimer

_RECORD = "kernel.json"
_TIMEOUT_SECONDS = 120.0


class PredictedKernels:
    """Compiles kernels in workers, and says what a model makes of them.

    Parameters
    ----------
    predict : callable
        Predicts a module of one function ``main`` in a worker, and returns the path of what it gave to `write_prediction`.
    workers : int, optional
        Number of processes that compile at once; by default `enet_tvm.machine.default_threads`.
    """

    def __init__(self, predict: Callable[[tvm.IRModule], str], workers: int | None = None) -> None:
        self._pool = builder_pool(_TIMEOUT_SECONDS, workers or default_threads().threads)
        self._predict = predict

    def build(self, modules: Sequence[tvm.IRModule]) -> list[Path | Outcome]:
        """Predict modules of one function ``main``, several at once.

        Returns
        -------
        list of Path or Outcome
            A file that says what the model makes of each; a failure, such as a kernel that spills registers, in its place.
        """
        with lean_workers():
            results = list(self._pool.map_with_error_catching(self._predict, modules))
        return [built_or_failed(result, _TIMEOUT_SECONDS, "") for result in results]

    def run(self, libraries: Sequence[Path], arguments: Sequence[Any]) -> list[Outcome]:
        """Return the seconds that the model makes of what `build` has made; arguments are of no use."""
        return [Outcome((float(read_json(path, "tune again")["seconds"]),)) for path in libraries]

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._pool._threadpool.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False)


def write_prediction(directory: str, seconds: float, **others: Any) -> str:
    """Write down, in a folder of its own, what a model makes of a kernel, and return the file."""
    path = Path(tempfile.mkdtemp(dir=directory)) / _RECORD
    write_json(path, {"seconds": seconds, **others})
    return str(path)


class PredictedPlace(Place):
    """A model, in place of a machine that is not at hand.

    Attributes
    ----------
    source : str
        What the times are from, as a phrase.
    """

    modelled: ClassVar[bool] = True
    source: str

    @abstractmethod
    def timer(self, directory: Path) -> KernelTimer:
        """Return what predicts kernels one by one, with a folder for what is found of each."""

    def compare(self, artifacts: Mapping[str, Path], seconds: float) -> dict[str, float]:
        """Return the predicted seconds of a forward pass of each artifact."""
        return {name: self.launch_seconds(path)[1] for name, path in artifacts.items()}

    def parity(self, artifact: Path, untuned: Path, weights: Path) -> tuple[Parity | None, bool]:
        """Return that the artifact did not run, which is no reason against it: tests run every kernel at all of its points."""
        return None, True
