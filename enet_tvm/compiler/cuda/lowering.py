"""Lowering modules one after the other that have most of their kernels in common, each kernel once.

A network for a GPU is compiled again when some of its kernels did not fit, with smaller ones in their place. TVM's passes over
TensorIR take as long for that as the first time, though most kernels are the same. They look at one function at a time, so what
they have made of each is kept, and new ones alone are lowered. The one thing that they ask of a module is whether it has a
single function, which is then called its entry; so none is ever lowered alone that has others beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tvm
from tvm.tirx import compilation_pipeline as pipelines
from tvm.tirx.build import split_host_device_mods

Functions = dict[tvm.ir.GlobalVar, tvm.tirx.PrimFunc]

_OF_DEVICE = re.compile(r"_kernel(_\d+)?")
"""What TVM adds to a function's name for each part that runs on the device."""


class IncrementalLowering:
    """TVM's lowering of TensorIR, which keeps what it has made of each function."""

    def __init__(self) -> None:
        self._made: dict[str, Functions] = {}

    @contextmanager
    def pipeline(self) -> Iterator[str]:
        """While this context is entered, TVM knows the lowering by the name that it yields, for ``tir_pipeline``."""
        name = f"enet-tvm-{id(self)}"
        pipelines.register_tir_pipeline(name, self._passes)
        try:
            yield name
        finally:
            del pipelines.PIPELINE_MAP[name]

    def _passes(self) -> tuple[tvm.transform.Pass, Any, Any]:
        """Return what TVM asks of a pipeline: its passes, and those for the host's and the device's part, which are in them."""
        lower, finish_host, finish_device = pipelines.get_tir_pipeline("default")

        def whole(mod: tvm.IRModule) -> Functions:
            host, devices = split_host_device_mods(lower(mod))
            parts = [finish_host()(host), *(finish_device()(device) for device in devices.values())]
            return {var: function for part in parts for var, function in part.functions.items()}

        @tvm.transform.module_pass(opt_level=0, name="LowerIncrementally")
        def incremental(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
            functions = dict(mod.functions.items())  # In the module's order, which is that of the code.
            alone = "alone " if len(functions) == 1 else ""
            # With all names: they become those of variables in the code.
            keys = {var: alone + tvm.ir.save_json(function) for var, function in functions.items()}
            missing = [var for var, key in keys.items() if key not in self._made]
            beside = [var for var in functions if var not in missing][:1] if len(missing) == 1 else []
            if missing:
                lowered = whole(tvm.IRModule({var: functions[var] for var in missing + beside}, attrs=mod.attrs))
                parts = {var: _parts(str(var.name_hint), lowered) for var in missing}
                if len(missing) == len(functions) and sum(map(len, parts.values())) != len(lowered):
                    return tvm.IRModule(lowered, attrs=mod.attrs)  # Something that is nobody's; nothing of it is kept.
                self._made.update({keys[var]: parts[var] for var in missing})
            made = {var: function for key in keys.values() for var, function in self._made[key].items()}
            return tvm.IRModule(made, attrs=mod.attrs)

        def nothing() -> tvm.transform.Pass:
            return tvm.transform.Sequential([])

        return incremental, nothing, nothing


def _parts(name: str, lowered: Functions) -> Functions:
    """Return what a function of this name has become: itself for the host, and its parts for the device."""

    def belongs(other: str) -> bool:
        return other == name or (other.startswith(name) and _OF_DEVICE.fullmatch(other[len(name) :]) is not None)

    return {var: function for var, function in lowered.items() if belongs(str(var.name_hint))}
