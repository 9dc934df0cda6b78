"""A frame on a GPU: input and output that stay where they are, a queue of its own, and all launches of a network as one graph.

What is done for a frame is a copy into page-locked memory, and then, without waiting in between, its transfer, one launch of
the graph, and the transfer of the result. The graph is captured when the frame is made: it holds the addresses of its tensors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.errors import UserError
from enet_tvm.runtime.queues import Queue

EXCLUSIVE = threading.RLock()
"""Lock for whoever allocates on a GPU, or runs a network there that is no graph.

While one thread captures a graph, CUDA lets no other allocate; and networks without a graph share a pool of memory, which the
next may be given while the GPU still works on the last. What replays a graph does neither."""


@dataclass(frozen=True)
class FrameTimes:
    """Durations of a frame, in seconds, by the GPU's own clock.

    Attributes
    ----------
    device : float
        Duration of the network.
    transfer : float
        Durations of moving input and output, those within the host's memory included.
    """

    device: float
    transfer: float


class Frame:
    """One frame at a time through a network on a GPU.

    Parameters
    ----------
    queue : Queue
        Queue of the device; closed with the frame.
    function : callable
        Function ``frame`` of the network (`enet_tvm.artifact.FRAME_FUNCTION`), of a virtual machine that calls it with the
        tensors of this frame alone.
    shape : tuple of int
        Shape of the input, float32.
    output_shape : tuple of int
        Shape of the output.
    output_dtype : str
        Data type of the output.

    Raises
    ------
    UserError
        When the device's memory does not suffice, or its driver cannot capture the graph.
    """

    def __init__(
        self,
        queue: Queue,
        function: Callable[[Any, Any], Any],
        shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        output_dtype: str,
    ) -> None:
        self._queue = queue
        self._function = function
        try:
            with EXCLUSIVE:
                self._input, self._output = queue.allocate(shape, "float32"), queue.allocate(output_shape, output_dtype)
                self._sent = queue.allocate_host(shape, "float32")
                self._received = queue.allocate_host(output_shape, output_dtype)
                self._from, self._to = np.from_dlpack(self._sent), np.from_dlpack(self._received)
                self._from[...] = 0
                queue.copy(self._sent, self._input)
                with queue.current():
                    function(self._input, self._output)
                queue.wait()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"the network cannot be set up on this machine's GPU ({reason}); free its memory or update its driver, "
                "or run it without a graph: set ENET_TVM_CUDA_GRAPH=0"
            ) from error

    def run(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Run one forward pass and return a copy of its output.

        Parameters
        ----------
        x : ndarray
            float32 input of exactly the frame's shape.
        """
        self._fill(x)
        self._queue.copy(self._sent, self._input)
        self._launch()
        self._queue.copy(self._output, self._received)
        self._queue.wait()
        return self._to.copy()

    def run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[Any], FrameTimes]:
        """Run one forward pass as `run` does, and time its parts by marks in the queue."""
        queue = self._queue
        begun = time.perf_counter()
        self._fill(x)
        filled = time.perf_counter()
        marks = [queue.mark()]
        queue.copy(self._sent, self._input)
        marks.append(queue.mark())
        self._launch()
        marks.append(queue.mark())
        queue.copy(self._output, self._received)
        marks.append(queue.mark())
        queue.wait()
        done = time.perf_counter()
        output = self._to.copy()
        moved = filled - begun + time.perf_counter() - done
        sent, computed, received = (queue.seconds(a, b) for a, b in pairwise(marks))
        return output, FrameTimes(computed, sent + received + moved)

    def _fill(self, x: NDArray[np.float32]) -> None:
        if x.shape != self._from.shape:
            raise ValueError(f"the input is of shape {x.shape}, and the network takes {self._from.shape}")
        np.copyto(self._from, x)

    def _launch(self) -> None:
        with self._queue.current():
            self._function(self._input, self._output)

    def close(self) -> None:
        """Let go of the queue; nothing can be run afterwards."""
        self._queue.close()
