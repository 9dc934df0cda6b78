"""Real builds and runs in other processes: what is good is timed, what is bad is explained and harms nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from enet_tvm.targets import load_target
from enet_tvm.tuning.measure import Measurer, Timing


def module(body: Callable[[Any], None], size: int = 1024) -> tvm.IRModule:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        body(T.arg("x", T.buffer((size,), "float32", buffer_name="x")))
    return tvm.IRModule({"main": builder.get()})


def fill(x: Any) -> None:
    with T.parallel(32) as i, T.serial(32) as j:
        T.buffer_store(x, T.float32(1), [i * 32 + j])


def call(name: str, *arguments: Any) -> Callable[[Any], None]:
    return lambda x: T.evaluate(tvm.tirx.call_extern("int32", name, *arguments))


def sleep_for_ever(x: Any) -> None:
    with T.serial(10_000) as i:
        T.evaluate(tvm.tirx.call_extern("int32", "usleep", 100_000 + i))


@pytest.fixture(scope="module")
def measurer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measurer]:
    spec = load_target("native")
    directory = tmp_path_factory.mktemp("libraries")
    timing = Timing(repeats=3, milliseconds=1, timeout=6.0)
    measurer = Measurer(spec.to_tvm(), spec.triple, spec.toolchain, 1, directory, timing=timing, workers=1)
    yield measurer
    measurer.close()


@pytest.mark.slow
def test_outcomes(measurer: Measurer):
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    no_sense = module(lambda x: T.buffer_store(x, tvm.tirx.Var("nowhere", "float32"), [0]))
    modules = [module(fill), module(call("abort")), module(sleep_for_ever), module(call("no_such_function")), no_sense]
    built = measurer.build([*modules, module(fill, 2048)])
    libraries = [library for library in built if isinstance(library, Path)]
    assert len(libraries) == 5
    assert not isinstance(built[4], Path)
    assert built[4].reason.startswith("does not compile: ")
    assert built[4].seconds == ()
    arguments = list(ArgInfo.from_prim_func(modules[0]["main"]))
    wrong = list(ArgInfo.from_prim_func(module(fill, 16)["main"]))
    good, crashed, slow, unresolved, mismatched = measurer.run(libraries, [arguments] * 4 + [wrong])
    assert len(good.seconds) == 3
    assert all(0 < seconds < 1e-2 for seconds in good.seconds)
    assert (crashed.seconds, crashed.reason) == ((), "it crashed")
    assert (slow.seconds, slow.reason) == ((), "running took longer than 6 s")
    assert (unresolved.seconds, mismatched.seconds) == ((), ())
    assert mismatched.reason.startswith("does not run: ")
    assert all(outcome.of_kernel for outcome in (crashed, slow, unresolved, mismatched))
    # The worker that crashed, hung or failed is replaced.
    assert measurer.run([libraries[0]], [arguments])[0].seconds
    assert measurer.build([]) == measurer.run([], []) == []
