"""CUDA C++, as NVRTC gets it, run on a processor: a fiber for each thread, the order drawn anew after each barrier.

Zig compiles the source as C++ beside `cuda_fibers_csrc`, with the instrumentation of the thread sanitiser, whose calls come to
the fibers instead: every access is looked at. A launch fails, and says which thread did what, where one

- reads or writes outside the arrays it was given, at an address that is not aligned, or writes to a constant one,
- reads shared memory that its block has not written,
- meets another thread's access to the same place, one of them a write, with no barrier between them (or at all, where it
  is of another block),
- or where not all threads come to a barrier, or not all of a warp to an instruction for the whole warp.

What it cannot show: what a compiler for a GPU makes of the source, and how long that takes.

    program = compile_fibers(source, folder)
    arrays = program.launch("kernel", (blocks, 1, 1), (128, 1, 1), {"data": x, "out": y}, seed=1)
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from enet_tvm.compiler.linking import zig_linker
from enet_tvm.errors import UserError

_SOURCES = Path(__file__).parent / "cuda_fibers_csrc"
_ALIGNMENT = 256
"""Bytes that memory of a GPU is aligned to."""

_MARGIN = 4096
"""Bytes around each array, so that what lies outside belongs to none."""

_KERNEL = re.compile(
    r"__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{"
)
_ASSEMBLY = re.compile(r"\basm\s*(?:volatile|__volatile__)?\s*\(|\b__asm__\s*(?:volatile|__volatile__)?\s*\(")
_OPTIONS = (
    # Kernels look at the bits of one type as those of another through a pointer.
    *("-O1", "-w", "-fPIC", "-fno-strict-aliasing"),
    *("-nostdinc++", "-fno-exceptions", "-fno-rtti", "-fno-sanitize=undefined", "-fsanitize=thread"),
    # Each access as it is written: two neighbours stay two, and one that a write follows is not left out.
    *("-fno-vectorize", "-fno-slp-vectorize", "-mllvm", "-tsan-instrument-read-before-write=1"),
    # And one of a vector of which each element goes somewhere else stays one.
    *("-mllvm", "-disable-vector-combine"),
    *("-mllvm", "-tsan-instrument-func-entry-exit=0"),
)
_SECONDS = 300


def _with_halves() -> list[str]:
    """Return the option for conversions of float16 by the processor's own instructions, where it has them."""
    known = Path("/proc/cpuinfo")
    return ["-mf16c"] if known.exists() and re.search(r"^flags\b.*\bf16c\b", known.read_text(), re.MULTILINE) else []


ACCESS = np.dtype(
    [("instruction", "u8"), ("address", "u8"), ("thread", "u4"), ("size", "u2"), ("writes", "?"), ("shared", "?")]
)
"""An access of a traced block: where in the code, where in memory, by which thread of the block, and how many bytes."""


class KernelFaultError(AssertionError):
    """A launch did what no launch may do; the message says which thread did what."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: its name without TVM's suffix, its C++ type, and whether it points to constant memory."""

    name: str
    type: str

    @property
    def pointer(self) -> bool:
        return "*" in self.type

    @property
    def constant(self) -> bool:
        return self.pointer and "const" in self.type.split("*")[0].split()


class FiberProgram:
    """The kernels of a CUDA source, ready to be launched."""

    def __init__(self, library: Path, kernels: Mapping[str, Sequence[Parameter]]) -> None:
        self.kernels = kernels
        self._library = ctypes.CDLL(str(library))
        self._library.fibers_launch.restype = ctypes.c_char_p
        self._library.fibers_traced.restype = ctypes.c_size_t

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Mapping[str, np.ndarray | float] | Sequence[np.ndarray | float],
        *,
        seed: int = 0,
        dynamic_shared: int = 0,
    ) -> dict[str, np.ndarray]:
        """Run a launch and return its arrays afterwards, by the parameters' names; those given are not changed.

        Parameters
        ----------
        kernel : str
            Name of the kernel in the source.
        grid, block : sequence of int
            Up to three extents each.
        arguments : mapping or sequence
            By name (``data`` for ``data_ptr`` too) or in order: an array for a pointer, a number for a scalar.
        seed : int
            Decides the order of blocks and threads.
        dynamic_shared : int
            Bytes of dynamic shared memory.

        Raises
        ------
        KernelFaultError
            When the kernel does something wrong.
        """
        return self._run(kernel, grid, block, arguments, seed, dynamic_shared, -1)

    def trace(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Mapping[str, np.ndarray | float] | Sequence[np.ndarray | float],
        number: int,
        *,
        dynamic_shared: int = 0,
    ) -> np.ndarray:
        """Run one block of a launch, the one of this number, and return its accesses in their order, of type `ACCESS`."""
        self._run(kernel, grid, block, arguments, 0, dynamic_shared, number)
        accesses = ctypes.c_void_p()
        count = self._library.fibers_traced(ctypes.byref(accesses))
        data = ctypes.string_at(accesses.value, count * ACCESS.itemsize) if count else b""
        return np.frombuffer(data, ACCESS)

    def _run(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Mapping[str, np.ndarray | float] | Sequence[np.ndarray | float],
        seed: int,
        dynamic_shared: int,
        traced: int,
    ) -> dict[str, np.ndarray]:
        parameters = self.kernels[kernel]
        given = arguments if isinstance(arguments, Mapping) else dict(zip((p.name for p in parameters), arguments, strict=True))
        assert set(given) == {p.name for p in parameters}, f"{kernel} takes {[p.name for p in parameters]}"
        cells, arrays, kept = [], {}, []
        for parameter in parameters:
            value = given[parameter.name]
            if parameter.pointer:
                assert isinstance(value, np.ndarray), f"{parameter.name} is a pointer"
                array = arrays[parameter.name] = _on_device(value)
                name = parameter.name.encode()
                kept.append(name)
                self._library.fibers_array(
                    ctypes.c_void_p(array.ctypes.data),
                    ctypes.c_size_t(array.nbytes),
                    min(4, array.itemsize),
                    parameter.constant,
                    name,
                )
                cells.append(ctypes.c_void_p(array.ctypes.data))
            else:
                cells.append({"float": ctypes.c_float, "double": ctypes.c_double}.get(parameter.type, ctypes.c_int64)(value))
        pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        extents = [(ctypes.c_uint * 3)(*[*some, 1, 1][:3]) for some in (grid, block)]
        shared = (ctypes.c_void_p * 3).in_dll(self._library, f"fibers_shared_{kernel}")
        start, end, granule = (shared[i] or 0 for i in range(3))
        said = self._library.fibers_launch(
            getattr(self._library, f"fibers_call_{kernel}"),
            pointers,
            *extents,
            ctypes.c_void_p(start),
            ctypes.c_size_t(end - start),
            ctypes.c_size_t(dynamic_shared),
            granule,
            ctypes.c_uint64(seed),
            ctypes.c_long(traced),
        )
        if said is not None:
            raise KernelFaultError(f"{kernel}: {said.decode()}")
        return arrays


def compile_fibers(source: str, folder: Path, defines: Mapping[str, object] | None = None) -> FiberProgram:
    """Compile CUDA C++ for fibers; without Zig, the test that asks for it is skipped.

    Parameters
    ----------
    source : str
        As TVM generates it, or as a person writes it; `asm` with the instructions of ``cuda_as_cpp.h`` included.
    folder : Path
        Where to put what is made.
    defines : mapping, optional
        Macros.
    """
    try:
        zig = zig_linker(platform.machine())
    except UserError as error:
        pytest.skip(str(error))
    kernels = {name: _parameters(signature) for name, signature in _KERNEL.findall(source)}
    assert kernels, "there is no kernel in this source"
    for header in ("cuda.h", "cuda_fp16.h", "cuda_bf16.h", "cstdint", "type_traits", "mma.h"):
        (folder / header).touch()  # What they declare is in cuda_as_cpp.h; and no C++ library is needed.
    code = f'#include "{_SOURCES / "cuda_as_cpp.h"}"\n{_with_shared(_with_instructions(source))}\n{_entries(source, kernels)}'
    options = [*_OPTIONS, *_with_halves(), f"-I{folder}", *(f"-D{name}={value}" for name, value in (defines or {}).items())]
    stem = f"fibers-{hashlib.sha256(f'{code}{options}'.encode()).hexdigest()[:16]}"
    file, compiled, library = (folder / f"{stem}{suffix}" for suffix in (".cpp", ".o", ".so"))
    if not library.exists():
        file.write_text(code, encoding="utf-8")
        command = [*zig.command, *options, "-c", str(file), "-o", str(compiled)]
        environment = {**os.environ, **zig.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        # Not instrumented themselves, and without the sanitiser's own library.
        zig(library, [str(compiled), str(_SOURCES / "fibers.c")], ["-O2", "-fno-sanitize=undefined"])
    return FiberProgram(library, kernels)


def _parameters(signature: str) -> list[Parameter]:
    words = [re.sub(r"\b__restrict__\b|\b__restrict\b|\b__grid_constant__\b", " ", part) for part in signature.split(",")]
    parts = [re.fullmatch(r"\s*(.*?)\s*(\w+)\s*", part, flags=re.DOTALL) for part in words]
    return [Parameter(part[2].removesuffix("_ptr"), part[1].strip()) for part in parts if part is not None]


def _with_shared(source: str) -> str:
    """Return the source with each kernel's shared memory in a section of its own, whose ends the linker knows."""
    dynamic = r"\bextern\s+__shared__\s+(?:(?:__align__|alignas)\s*\(\s*\d+\s*\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
    source = re.sub(dynamic, r"\1* const \2 = (\1*)cuda_dynamic_shared;", source)
    # C++ has no place for `alignas` there.
    source = re.sub(r"\b__shared__\s+alignas\s*\(", "__shared__ __align__(", source)
    pieces = _by_kernel(source)
    return "".join(re.sub(r"\b__shared__\b", f'CUDA_SHARED("shared_{name}")', text) for name, text in pieces)


def _by_kernel(source: str) -> list[tuple[str, str]]:
    """Return the source cut after each kernel's head but the first, so that each piece holds the body of one kernel."""
    found = list(_KERNEL.finditer(source))
    starts = [0, *(match.start() for match in found[1:]), len(source)]
    return [(match[1], source[start:end]) for match, (start, end) in zip(found, pairwise(starts), strict=True)]


def _entries(source: str, kernels: Mapping[str, Sequence[Parameter]]) -> str:
    """Return functions that call the kernels as ``cuLaunchKernel`` does, and where their shared memory is."""
    lines = []
    for name, text in _by_kernel(source):
        values = ", ".join(f"*({parameter.type}*)arguments[{i}]" for i, parameter in enumerate(kernels[name]))
        lines.append(
            f'extern "C" __attribute__((no_sanitize("thread")))'
            f" void fibers_call_{name}(void** arguments) {{ {name}({values}); }}"
        )
        declared = re.findall(r"(extern\s+)?__shared__\s+(?:(?:__align__|alignas)\s*\(\s*\d+\s*\)\s*)?([^\[;=]*)", text)
        static = "0, 0"
        if any(not dynamic for dynamic, _ in declared):
            section = f"shared_{name}"
            lines.append(f'extern "C" __attribute__((visibility("hidden"))) char __start_{section}[], __stop_{section}[];')
            static = f"__start_{section}, __stop_{section}"
        kinds = " ".join(words for _, words in declared)
        granule = 1 if re.search(r"char|int8|bool", kinds) else 2 if re.search(r"half|short|16", kinds) else 4
        lines.append(f'extern "C" const void* const fibers_shared_{name}[3] = {{{static}, (const void*){granule}}};')
    return "\n".join(lines) + "\n"


def _with_instructions(source: str) -> str:
    """Return the source with calls of functions for its `asm`: those that ``cuda_as_cpp.h`` has."""
    out, position = [], 0
    while match := _ASSEMBLY.search(source, position):
        end, depth, quoted = match.end(), 1, False
        while depth:
            letter = source[end]
            if letter == '"' and source[end - 1] != "\\":
                quoted = not quoted
            depth += 0 if quoted else {"(": 1, ")": -1}.get(letter, 0)
            end += 1
        body = source[match.end() : end - 1]
        text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', re.split(r'(?<=")\s*:', body)[0]))
        name = re.match(r"(?:\s|\\n|\\t|\{)*([\w.:]+)", text)
        assert name is not None, f"asm without an instruction: {body}"
        operands = _operands(body)
        call = f"ptx_{re.sub(r'[.:]+', '_', name[1])}({', '.join(operands)})"
        out += [source[position : match.start()], call]
        position = end
    return "".join([*out, source[position:]])


def _operands(body: str) -> list[str]:
    """Return the expressions of ``"=r"(a), "+f"(b) : "r"(c)``."""
    found, position = [], 0
    for match in re.finditer(r'"[=+&]*[a-z]"\s*\(', body):
        if match.start() < position:
            continue
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(body[end], 0)
            end += 1
        found.append(body[match.end() : end - 1])
        position = end
    return found


def _on_device(values: np.ndarray) -> np.ndarray:
    """Return a copy at an address as a GPU's allocations have them, with nothing else near it."""
    memory = np.full(values.nbytes + 2 * _MARGIN + _ALIGNMENT, 0xFF, np.uint8)
    start = _MARGIN + -(memory.ctypes.data + _MARGIN) % _ALIGNMENT
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy
