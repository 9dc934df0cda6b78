"""Watching the kernels of a forward pass: what each takes, and what it writes. For engines here and servers on devices.

A virtual machine calls its instrument before and after everything that it calls, on the thread that runs it. An instrument can
be replaced and not taken off, so it goes into a machine of its own. Needs ``tvm_ffi`` alone, which is given, and a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from enet_tvm.runtime.queues import Clock

T = TypeVar("T")

_BOOKKEEPING = "vm.builtin."
"""Prefix of the names of functions other than kernels that a machine calls: allocation, shapes, null values."""


def time_kernels(ffi: ModuleType, machine: Any, name: str, x: Any, clock: Clock) -> list[tuple[str, float]]:
    """Call a function of a virtual machine and return the name and the seconds of every kernel, in launch order.

    Parameters
    ----------
    ffi : ModuleType
        Module ``tvm_ffi``.
    machine : Module
        Virtual machine, initialised; it stays instrumented afterwards.
    name : str
        Name of the function.
    x : Tensor
        Input of the function, on the machine's device.
    clock : Clock
        Clock of the machine's device. It is waited for once, at the end: a kernel on a GPU follows the one before it as it
        would without a clock.
    """
    marks: list[tuple[str, Any, Any]] = []
    start = None

    def around_call(_function: Any, kernel: str, before: bool, *_rest: Any) -> int:
        nonlocal start
        if kernel.startswith(_BOOKKEEPING):
            return 0
        if before:
            start = clock.mark()
        else:
            marks.append((str(kernel), start, clock.mark()))
        return 0

    machine["set_instrument"](ffi.convert_func(around_call))
    machine[name](x)
    clock.wait()
    return [(kernel, clock.seconds(begin, end)) for kernel, begin, end in marks]


def keep_outputs(ffi: ModuleType, machine: Any, name: str, x: Any, copy: Callable[[Any], T]) -> list[tuple[str, T]]:
    """Call a function of a virtual machine and return the name of every kernel and a copy of its output, in launch order.

    Parameters
    ----------
    ffi, machine, name, x
        Module, virtual machine, function and input, as for `time_kernels`.
    copy : callable
        Copies a tensor: later kernels write into the same memory.
    """
    outputs: list[tuple[str, T]] = []

    def after_call(_function: Any, kernel: str, before: bool, _result: Any, *arguments: Any) -> int:
        if not before and not kernel.startswith(_BOOKKEEPING):
            outputs.append((str(kernel), copy(arguments[-1])))
        return 0

    machine["set_instrument"](ffi.convert_func(after_call))
    machine[name](x)
    return outputs
