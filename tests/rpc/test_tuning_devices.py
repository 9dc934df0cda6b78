"""Kernels timed on devices: the fleet of a tracker, crashes that cost one trial, and a device that goes away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from enet_tvm.targets import load_target
from enet_tvm.tuning.measure import Fleet, Measurer, Timing, all_lost


def module(crash: bool = False) -> tvm.IRModule:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        x = T.arg("x", T.buffer((1024,), "float32", buffer_name="x"))
        if crash:
            T.evaluate(tvm.tirx.call_extern("int32", "abort"))
        with T.parallel(32) as i, T.serial(32) as j:
            T.buffer_store(x, T.float32(1), [i * 32 + j])
    return tvm.IRModule({"main": builder.get()})


@pytest.mark.slow
def test_trials_on_devices(farm: Any, tmp_path: Path):
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    spec, timing = load_target("native"), Timing(repeats=2, milliseconds=1, timeout=30.0)
    fleet = Fleet(tracker, "board", 1)
    measurer = Measurer(
        spec.to_tvm(), spec.triple, spec.toolchain, 1, tmp_path / "libraries", fleet, timing, workers=1, device_wait=8.0
    )
    try:
        good, bad = measurer.build([module(), module(crash=True)])
        assert isinstance(good, Path)
        assert isinstance(bad, Path)
        arguments = list(ArgInfo.from_prim_func(module()["main"]))
        first, crashed, second = measurer.run([good, bad, good], [arguments] * 3)
        assert len(first.seconds) == len(second.seconds) == 2
        assert (crashed.seconds, crashed.of_kernel) == ((), True)
        assert crashed.reason == "it crashed"
        # Without its server there is nobody to blame the kernel on.
        server.kill()
        began = time.monotonic()
        outcomes = measurer.run([good] * 12, [arguments] * 12)
        assert time.monotonic() - began < 45, "twelve waits for a device, one after the other, take a minute or more"
        assert len(outcomes) == 12
        assert all_lost(outcomes)
        assert all(outcome.seconds == () and outcome.reason.startswith("the device ") for outcome in outcomes)
    finally:
        measurer.close()
