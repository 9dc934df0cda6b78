"""Tuning for an ARM processor that is not at hand: kernels run on an emulated one, and their cycles are those of a model.

`enet_tvm.compiler.arm` counts what is executed and asks LLVM's model of the processor. There is no clock in that: a second is
10**9 cycles.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from enet_tvm.compiler.arm.cost import model_of
from enet_tvm.compiler.arm.simulation import Simulation, build_program
from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.tuning_keys import fingerprint
from enet_tvm.errors import UserError
from enet_tvm.files import read_json
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.measure import Outcome
from enet_tvm.tuning.prediction import PredictedKernels, PredictedPlace, write_prediction
from enet_tvm.tuning.tasks import alone

if TYPE_CHECKING:
    import tvm

    from enet_tvm.compiler.pipeline import Compiled


class SimulatedKernels(PredictedKernels):
    """Executes kernels for an ARM processor on an emulated one, and says how many cycles a model makes of them.

    Parameters
    ----------
    target : TargetSpec
        Target with the processor.
    threads : int
        Number of threads that share a kernel's work.
    directory : Path
        Directory for what is found of each kernel.
    workers : int, optional
        Number of processes that compile at once; by default `enet_tvm.machine.default_threads`.

    Raises
    ------
    UserError
        When LLVM has no model of the processor, or the emulator cannot be had here.
    """

    def __init__(self, target: TargetSpec, threads: int, directory: Path, workers: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        simulation = Simulation(target.to_tvm(), model_of(target.mcpu), threads, arm_tools(), build_program(directory))
        super().__init__(functools.partial(simulate_kernel, simulation=simulation, directory=str(directory)), workers)


def simulate_kernel(mod: tvm.IRModule, simulation: Simulation, directory: str) -> str:
    """Simulate a kernel in a worker, and return a file in a folder of its own that says what it costs."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        cost = simulation.cost(mod, Path(folder))
    return write_prediction(directory, 1e-9 * cost.cycles, instructions=cost.instructions)


class Simulated(PredictedPlace):
    """An emulated processor and a model of its cycles, in place of a machine with a target's processor.

    Parameters
    ----------
    target : TargetSpec
        Target with the processor.
    threads : int
        Number of threads of a forward pass; what counts of each kernel is the busiest.

    Attributes
    ----------
    source : str
        What the cycles are from, as a phrase.

    Raises
    ------
    UserError
        When LLVM has no model of the processor, or the emulator cannot be had here.
    """

    simulated: ClassVar[bool] = True
    units: ClassVar[tuple[str, str]] = ("million cycles", "thousand cycles")

    def __init__(self, target: TargetSpec, threads: int) -> None:
        self._target, self._threads = target, threads
        self._model = model_of(target.mcpu)
        arm_tools()
        self.source = f"their instructions on an emulated processor and LLVM's model of {self._model}"
        self._kernels: SimulatedKernels | None = None
        self._launches: dict[Path, list[str]] = {}
        self._known: dict[str, tuple[float, int]] = {}

    @property
    def processor(self) -> str:
        """The simulation, with the model that ranks kernels in it."""
        return f"the simulation of {self._target.mcpu} by LLVM's model of {self._model}"

    def timer(self, directory: Path) -> SimulatedKernels:
        """Return what simulates kernels one by one, with a folder for what is found of each."""
        if self._kernels is None:
            self._kernels = SimulatedKernels(self._target, self._threads, directory)
        return self._kernels

    def take(self, artifact: Path, compiled: Compiled) -> None:
        """Simulate the kernels of what an artifact was compiled to, but for those that are known.

        Raises
        ------
        UserError
            When one of them cannot be run.
        """
        keys = {name: fingerprint(function) for name, function in compiled.functions.items()}
        self._launches[artifact] = [keys[launch.kernel] for launch in compiled.launches]
        missing = {key: name for name, key in keys.items() if key in self._launches[artifact] and key not in self._known}
        kernels = self.timer(artifact.parent / "libraries")
        costs = kernels.build([alone(compiled.functions[name]) for name in missing.values()])
        for (key, name), made in zip(missing.items(), costs, strict=True):
            if isinstance(made, Outcome):
                raise UserError(f"{name} cannot be simulated: {made.reason}; tune on a device: give --tracker HOST:PORT")
            found = read_json(made, "tune again")
            self._known[key] = (float(found["seconds"]), int(found["instructions"]))

    def launch_seconds(self, artifact: Path) -> tuple[list[float], float]:
        """Return the seconds of each launch of a forward pass, and of all of them: cycles, of which 10**9 make one."""
        seconds = [self._known[key][0] for key in self._launches[artifact]]
        return seconds, sum(seconds)

    def remark(self, artifacts: Mapping[str, Path]) -> str:
        """Return how many instructions the kernels of each artifact take, in a sentence."""
        millions = {name: sum(self._known[key][1] for key in self._launches[path]) / 1e6 for name, path in artifacts.items()}
        counts = ", ".join(f"{count:.2f} million {name}" for name, count in millions.items())
        return f"instructions of the kernels{' on the busiest thread' if self._threads > 1 else ''}: {counts}"

    def close(self) -> None:
        """End the workers."""
        if self._kernels is not None:
            self._kernels.close()
