"""The engine protocol: one compiled network that is called, here or on a device, and its capabilities beyond a plain call.

There are two: `enet_tvm.runtime.engine.LocalEngine` on this machine and `enet_tvm.rpc.engine.RemoteEngine` on a device. What
only some can do is a `Capability`, which is asked for before it is used; who does not ask gets a sentence.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from enet_tvm.errors import UserError


class Capability(Enum):
    """A capability that not every engine has; its value completes "it cannot ...".

    Attributes
    ----------
    TIMED_PASSES
        Computing and transfers are timed apart: `Engine.run_timed`.
    KERNEL_OUTPUTS
        Every kernel's output can be read: `Engine.run_instrumented`.
    KERNEL_TIMES
        Every kernel is timed by itself: `Engine.time_kernels`.
    ADAPTIVE_THREADS
        ``threads_now`` is less than ``threads`` while other work leaves no processors for them; otherwise they are equal.
    SIDE_BY_SIDE
        Several engines of one artifact that share the threads out, or each have a queue of the GPU, take less time for as many
        pictures than one engine does.
    """

    TIMED_PASSES = "time a forward pass part by part"
    KERNEL_OUTPUTS = "return what every kernel wrote"
    KERNEL_TIMES = "time every kernel"
    ADAPTIVE_THREADS = "use fewer threads beside other work"
    SIDE_BY_SIDE = "share its threads out between pictures"


class Engine(Protocol):
    """The compiled function ``main`` of a library."""

    @property
    def name(self) -> str:
        """Name of the machine or device that it runs on, for people."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities beyond a plain forward pass; the same as long as it lives."""

    @property
    def threads(self) -> int:
        """Threads that a forward pass uses at most."""

    @property
    def threads_now(self) -> int:
        """Threads that the last forward pass used."""

    @property
    def cores(self) -> str:
        """Processors that its threads are bound to, or why they are not, in words; empty where the target names none."""

    def run(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Run one forward pass.

        Parameters
        ----------
        x : ndarray
            N x 3 x H x W float32 input of exactly the compiled shape.

        Returns
        -------
        ndarray
            N x classes x H x W float32 logits, or N x H x W uint8 labels.

        Raises
        ------
        UserError
            When it was closed, or the device that it runs on is lost.
        """

    def run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[Any], float, float]:
        """Run one forward pass as `run` does; return its output, the seconds of computing, and those of moving data.

        Raises
        ------
        UserError
            As from `run`; also when it lacks `Capability.TIMED_PASSES`.
        """

    def run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        """Run one forward pass; return the name and a copy of the output of every kernel, in launch order.

        Raises
        ------
        UserError
            As from `run`; also when it lacks `Capability.KERNEL_OUTPUTS`.
        """

    def time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        """Run several forward passes; return the name and duration, in seconds, of every kernel in each.

        Raises
        ------
        UserError
            As from `run`; also when it lacks `Capability.KERNEL_TIMES`.
        """

    def close(self) -> None:
        """Let go of what it holds; it cannot run afterwards."""


def require(engine: Engine, capability: Capability, cure: str) -> None:
    """Refuse an engine that lacks a capability.

    Parameters
    ----------
    engine : Engine
        Engine that is about to be called.
    capability : Capability
        Capability that the call needs.
    cure : str
        Advice on what to do instead, for the sentence.

    Raises
    ------
    UserError
        When the engine does not declare it.
    """
    if capability not in engine.capabilities:
        raise UserError(f"{engine.name} cannot {capability.value}; {cure}")
