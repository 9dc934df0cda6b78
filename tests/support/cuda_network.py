"""Kernels and networks as CUDA C++, and launched on the fibers of `cuda_fibers`; takes no CUDA compiler."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from cuda_fibers import FiberProgram, compile_fibers
from tvm import relax, tirx

from enet_tvm.compiler import pipeline
from enet_tvm.compiler.cuda.backend import load_cuda_backend
from enet_tvm.compiler.cuda.device_compiler import c_names
from enet_tvm.compiler.cuda.incremental import IncrementalCompiler
from enet_tvm.compiler.dataflow import constant_value
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.targets import load_target

Extents = tuple[int, int, int]

_CALLBACK = "tvm_callback_cuda_compile"
_TAGS = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z")


@contextmanager
def recorded_sources() -> Iterator[list[str]]:
    """While this context is entered, TVM's CUDA modules carry nothing, and their sources are listed."""
    load_cuda_backend()
    sources: list[str] = []
    before = tvm.get_global_func(_CALLBACK, allow_missing=True)
    tvm.register_global_func(_CALLBACK, lambda source: sources.append(c_names(str(source))) or b"\0", override=True)
    try:
        yield sources
    finally:
        if before is not None:
            tvm.register_global_func(_CALLBACK, before, override=True)


def kernel_source(kernels: tirx.PrimFunc | Mapping[str, tirx.PrimFunc], target: str = "gtx-1080") -> str:
    """Return the CUDA C++ of kernels, each called ``NAME_kernel``; of one alone, ``main_kernel``."""
    named = kernels if isinstance(kernels, Mapping) else {"main": kernels}
    spec = load_target(target).to_tvm()
    with recorded_sources() as sources, spec:
        module = {name: kernel.with_attr("global_symbol", name) for name, kernel in named.items()}
        tvm.compile(tvm.IRModule(module), spec)
    return sources[-1]


def only_kernels(source: str, names: Collection[str]) -> str:
    """Return the CUDA C++ without those kernels that have none of these names."""
    head, *pieces = re.split(r'(?=^extern "C" __global__)', source, flags=re.MULTILINE)
    defined = re.compile(r"[^{;]*?(\w+)\([^)]*\)\s*\{")
    kept = [piece for piece in pieces if (match := defined.match(piece)) and match[1] in names]
    assert len(kept) == len(names)
    return "".join([head, *kept])


def launch_extents(kernel: tirx.PrimFunc) -> tuple[Extents, Extents]:
    """Return the grid and the block of a kernel with static extents."""
    extents = dict.fromkeys(_TAGS, 1)

    def bound(loop: tirx.For) -> None:
        if loop.kind == tirx.ForKind.THREAD_BINDING:
            extents[str(loop.thread_binding.thread_tag)] = int(loop.extent)

    tvm_ffi.structural_walk(kernel.body, (tirx.For, bound), order="pre")
    x, y, z, *block = extents.values()
    return (x, y, z), (block[0], block[1], block[2])


def run_kernel(kernel: tirx.PrimFunc, folder: Path, seed: int = 0, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """Launch a kernel on fibers and return its arrays afterwards."""
    program = compile_fibers(kernel_source(kernel), folder)
    return program.launch("main_kernel", *launch_extents(kernel), arrays, seed=seed)


def block_accesses(program: FiberProgram, name: str, kernel: tirx.PrimFunc) -> np.ndarray:
    """Return the accesses of a block in the middle of a launch, whose arrays are zeros."""
    grid, block = launch_extents(kernel)
    wanted = {parameter.name for parameter in program.kernels[f"{name}_kernel"]}
    arrays = {
        str(parameter.name): np.zeros([int(n) for n in parameter.ty.shape], str(parameter.ty.dtype))
        for parameter in kernel.params
        if str(parameter.name) in wanted
    }
    x, y, z = (extent // 2 for extent in grid)
    return program.trace(f"{name}_kernel", grid, block, arrays, x + grid[0] * (y + grid[1] * z))


@dataclass(frozen=True)
class CudaNetwork:
    """A network as CUDA C++.

    Attributes
    ----------
    source : str
        Its kernels.
    module : tvm.IRModule
        Kernels as TensorIR, and the calls of them.
    launches : tuple of Launch
        What a forward pass launches.
    """

    source: str
    module: tvm.IRModule
    launches: tuple[Launch, ...]

    @property
    def kernels(self) -> dict[str, tirx.PrimFunc]:
        """The kernels by their names in the module."""
        return {str(name.name_hint): f for name, f in self.module.functions_items() if isinstance(f, tirx.PrimFunc)}

    @property
    def digest(self) -> str:
        """A hash of all that a forward pass depends on: kernels, their launches, and constants."""
        digest = hashlib.sha256(self.source.encode())
        digest.update(repr([(name, launch_extents(kernel)) for name, kernel in self.kernels.items()]).encode())

        def add(expr: Any) -> None:
            if (value := constant_value(expr)) is not None:
                digest.update(value.tobytes())

        tvm_ffi.structural_walk(self.module["main"], add, order="pre")
        return digest.hexdigest()

    def run(self, program: FiberProgram, x: np.ndarray, seed: int = 0) -> Any:
        """Return what the network computes of `x`, launch after launch; what is to be written is NaN before."""
        return _Pass(self, program, seed).run(x)


class SharedPasses:
    """Forward passes of one picture on fibers: GPUs for which the very same kernels are made share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outputs: dict[str, Any] = {}

    def run(self, network: CudaNetwork, x: np.ndarray) -> Any:
        """Return what a network computes of the picture."""
        if (digest := network.digest) not in self._outputs:
            self._outputs[digest] = network.run(compile_fibers(network.source, self._folder), x)
        return self._outputs[digest]


def cuda_network(mod: tvm.IRModule, target: str, **options: Any) -> CudaNetwork:
    """Return an imported network compiled for a GPU up to its CUDA C++; options are those of `pipeline.compile_module`."""

    @contextmanager
    def no_compiler(*_: object) -> Iterator[list[str]]:
        yield []

    with recorded_sources() as sources, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "device_compiler", no_compiler)
        compiled, module = _compiled(mod, target, options)
    return CudaNetwork(sources[-1], module, compiled.launches)


def assembled_network(mod: tvm.IRModule, target: str, **options: Any) -> tuple[CudaNetwork, pipeline.Compiled]:
    """Return an imported network compiled for a GPU, tiles fitted to its registers: as CUDA C++, and what comes of it."""
    sources: list[str] = []
    compile_source = IncrementalCompiler.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            IncrementalCompiler, "compile", lambda self, source: sources.append(source) or compile_source(self, source)
        )
        compiled, module = _compiled(mod, target, options)
    return CudaNetwork(sources[-1], module, compiled.launches), compiled


def launches(mod: tvm.IRModule, target: str, **options: Any) -> tuple[Launch, ...]:
    """Return what a forward pass of an imported network launches, for which no code is made."""

    @contextmanager
    def no_compiler(*_: object) -> Iterator[list[str]]:
        yield []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "device_compiler", no_compiler)
        patch.setattr(tvm, "compile", lambda *_, **__: None)
        return _compiled(mod, target, options)[0].launches


def _compiled(mod: tvm.IRModule, target: str, options: Mapping[str, Any]) -> tuple[pipeline.Compiled, tvm.IRModule]:
    """Compile for a GPU; return the module as well that the virtual machine's code is made of."""
    spec = load_target(target)
    modules: list[tvm.IRModule] = []

    @tvm.instrument.pass_instrument
    class Kept:
        """Keeps that module."""

        def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
            if str(info.name) == "ToNonDataflow":
                modules.append(mod)

    with tvm.transform.PassContext(instruments=[Kept()]):
        compiled = pipeline.compile_module(mod, spec.to_tvm(), gpu=spec.gpu, **options)
    return compiled, modules[-1]


class _Pass:
    """A forward pass: a value for each variable of main."""

    def __init__(self, network: CudaNetwork, program: FiberProgram, seed: int) -> None:
        self._network = network
        self._program = program
        self._seed = seed
        self._values: dict[relax.Var, Any] = {}

    def run(self, x: np.ndarray) -> Any:
        main = self._network.module["main"]
        self._values = {main.params[0]: x}
        for block in main.body.blocks:
            for binding in block.bindings:
                self._values[binding.var] = self._value(binding.value)
        return self._value(main.body.body)

    def _value(self, value: relax.Expr) -> Any:
        if isinstance(value, relax.Var):
            return self._values[value]
        if (known := constant_value(value)) is not None:
            return known
        if isinstance(value, relax.Tuple):
            return tuple(map(self._value, value.fields))
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value)[value.index]
        assert isinstance(value, relax.Call), f"no launch: {value}"
        assert value.op.name == "relax.call_tir", f"no launch: {value}"
        outs = value.ty.fields if isinstance(value.ty, relax.TupleType) else [value.ty]
        arrays = [np.full([int(n) for n in out.shape], _unwritten(str(out.dtype)), str(out.dtype)) for out in outs]
        results = self._launch(str(value.args[0].name_hint), [*map(self._value, value.args[1].fields), *arrays])[-len(outs) :]
        return results[0] if len(results) == 1 else tuple(results)

    def _launch(self, name: str, arrays: list[np.ndarray]) -> list[np.ndarray]:
        kernel = self._network.module[name]
        self._seed += 1
        names = [str(parameter.name) for parameter in kernel.params]
        given: Mapping[str, np.ndarray] = dict(zip(names, arrays, strict=True))
        wanted = {parameter.name for parameter in self._program.kernels[f"{name}_kernel"]}
        used = {key: given[key] for key in given if key in wanted}
        after = self._program.launch(f"{name}_kernel", *launch_extents(kernel), used, seed=self._seed)
        return [after.get(key, given[key]) for key in names]


def _unwritten(dtype: str) -> float:
    return np.nan if dtype.startswith("float") else 255 if dtype == "uint8" else -1
