"""The network before it is tuned: the tasks in it, and the time of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enet_tvm.tuning.tasks import GenericTask, Task


@dataclass(frozen=True)
class Baseline:
    """The untuned network.

    Attributes
    ----------
    tasks : sequence of Task
        Tasks of template kernels, in the order of their first launch.
    generic : sequence of GenericTask
        Tasks of functions that no template made.
    launch_seconds : sequence of float
        Duration of each launch of a forward pass, in launch order.
    seconds : float
        Duration of a forward pass.
    compile_seconds : float
        Duration of compiling the network.
    """

    tasks: Sequence[Task]
    generic: Sequence[GenericTask]
    launch_seconds: Sequence[float]
    seconds: float
    compile_seconds: float

    @property
    def keys(self) -> set[str]:
        """The keys of all tasks."""
        return {task.key for task in self.tasks} | {task.key for task in self.generic}

    def seconds_of(self, task: Task | GenericTask) -> float:
        """Return the seconds that all launches of a task take in a forward pass."""
        return sum(self.launch_seconds[place] for place in task.launches)

    def share_of(self, task: Task | GenericTask) -> float:
        """Return the share of a forward pass that all launches of a task take."""
        return self.seconds_of(task) / sum(self.launch_seconds)
