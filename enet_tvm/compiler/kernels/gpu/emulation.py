"""Kernels of a GPU on a CPU: the threads of a launch one after the other.

That is correct for kernels whose threads tell each other nothing, and for those that do so in shared memory with barriers
between what is written and what is read: all threads run up to a barrier, then all from there on. A barrier inside a loop or a
test, and a register that lives across one, are refused. It says nothing of speed, and a missing barrier may go unnoticed; it is
how a machine without a GPU knows that what it compiles for one computes the right numbers.
"""

from __future__ import annotations

import tvm
from tvm import tirx

_DEPENDENT = ("T.thread_binding", "launch_thread", "sync", "shfl")


def serial_threads(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a kernel of the templates with every loop that was bound to a block or thread index serial.

    Raises
    ------
    ValueError
        When its threads depend on one another in other ways than by barriers outside loops, or its launch is not the outermost
        part of it.
    """
    blocks: list[tirx.For] = []
    threads: list[tirx.For] = []
    body = kernel.body
    while isinstance(body, tirx.For) and body.kind == tirx.ForKind.THREAD_BINDING:
        (threads if str(body.thread_binding.thread_tag).startswith("threadIdx") else blocks).append(body)
        body = body.body
    shared, phases = _phases(body)
    for phase in phases:
        text = phase.script()
        if found := [word for word in _DEPENDENT if word in text]:
            raise ValueError(f"the threads of this kernel cannot run one after the other: {found[0]}")
    if len(phases) > 1:
        whole = _one_after_the_other(phases, threads)
        body = tirx.stmt_seq(*shared, whole)
        threads = []
    elif shared:
        raise ValueError("the threads of this kernel cannot run one after the other: shared memory without a barrier")
    for loop in reversed([*blocks, *threads]):
        body = tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, body)
    return kernel.with_body(body)


def _one_after_the_other(phases: list[tirx.Stmt], threads: list[tirx.For]) -> tirx.Stmt:
    """Return a loop over phases around those over threads: each loop variable is bound once."""
    number = tirx.Var("phase", "int32")
    chosen = phases[-1]
    for place in range(len(phases) - 2, -1, -1):
        chosen = tirx.IfThenElse(number == place, phases[place], chosen)
    for loop in reversed(threads):
        chosen = tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, chosen)
    return tirx.For(number, 0, len(phases), tirx.ForKind.SERIAL, chosen)


def _phases(body: tirx.Stmt) -> tuple[list[tirx.Stmt], list[tirx.Stmt]]:
    """Return the allocations of shared memory of a thread's code, and what lies between its barriers.

    Raises
    ------
    ValueError
        When a register is written before a barrier and read after it.
    """
    shared: list[tirx.Stmt] = []
    phases: list[list[tirx.Stmt]] = [[]]
    for each in _flat(body):
        if isinstance(each, tirx.AllocBuffer) and "shared" in each.script():
            shared.append(each)
        elif isinstance(each, tirx.Evaluate) and "sync" in each.script():
            phases.append([])
        else:
            phases[-1].append(each)
    allocated: set[tvm.ir.Expr] = set()
    for phase in phases:
        used = {var for each in phase for var in tirx.analysis.undefined_vars(each, [])}
        if used & allocated:
            raise ValueError("the threads of this kernel cannot run one after the other: a register lives across a barrier")
        allocated |= {each.buffer for each in phase if isinstance(each, tirx.AllocBuffer)}
    return shared, [tirx.stmt_seq(*phase) for phase in phases]


def _flat(body: tirx.Stmt) -> list[tirx.Stmt]:
    return [part for each in body.seq for part in _flat(each)] if isinstance(body, tirx.SeqStmt) else [body]
