"""Kernels of a GPU on a CPU: the threads of a launch one after the other.

That is correct for kernels whose threads do not wait for each other, as this project's: one that has shared memory or a barrier
is refused. It says nothing of speed; it is how a machine without a GPU knows that what it compiles for one computes the right
numbers.
"""

from __future__ import annotations

from tvm import tirx


def serial_threads(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a kernel of the templates with every loop that was bound to a block or thread index serial.

    Raises
    ------
    ValueError
        When its threads depend on one another, or its launch is not the outermost part of it.
    """
    serial = kernel.with_body(_serial(kernel.body))
    text = serial.script()
    if found := [word for word in ("T.thread_binding", "launch_thread", "shared", "sync", "shfl") if word in text]:
        raise ValueError(f"the threads of this kernel cannot run one after the other: {found[0]}")
    return serial


def _serial(body: tirx.Stmt) -> tirx.Stmt:
    if isinstance(body, tirx.For) and body.kind == tirx.ForKind.THREAD_BINDING:
        return tirx.For(body.loop_var, body.min, body.extent, tirx.ForKind.SERIAL, _serial(body.body))
    return body
