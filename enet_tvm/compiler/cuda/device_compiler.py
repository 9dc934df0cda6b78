"""The compiler of device code that TVM calls while it builds for a GPU target."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from enet_tvm.compiler.cuda.backend import load_cuda_backend
from enet_tvm.compiler.cuda.incremental import IncrementalCompiler
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import with_register_limits, with_version
from enet_tvm.compiler.cuda.register_limits import free_limits
from enet_tvm.compiler.cuda.tools import CudaTools, find_cuda_tools

if TYPE_CHECKING:
    import tvm

_CALLBACK = "tvm_callback_cuda_compile"


def c_names(source: str) -> str:
    """Return generated CUDA code with valid C names: ``__`` for the mark of intermediate values (``layer#1``), no digit first.

    TVM's fusion takes the names of its kernels' arguments from the graph's variables, and prints them as they are; those of an
    ``nn.Sequential`` are numbers.
    """
    return re.sub(r"(?<![\w.])(?=\d\w*_ptr\b)", "_", re.sub(r"(?<=\w)#(?=\w)", "__", source))


@contextmanager
def device_compiler(arch: str, isa: str, registers: int = 255, *, trial: bool = False) -> Iterator[list[str]]:
    """While this context is entered, TVM's CUDA modules carry PTX for `arch` that claims ISA version `isa`.

    Parameters
    ----------
    arch : str
        GPU architecture, such as ``sm_53``.
    isa : str
        PTX ISA version of the oldest driver that the code may meet, such as ``6.5``.
    registers : int
        32-bit registers that a thread of the target may take.
    trial : bool
        Whether the modules are single kernels to be timed, which are compiled in half the time by `compile_lean`.

    Yields
    ------
    list of str
        PTX of every module so far; each is added as it is made.

    Raises
    ------
    UserError
        When the CUDA compiler is not installed, or TVM's CUDA backend cannot be loaded.
    """
    tools = find_cuda_tools()
    load_cuda_backend()

    made: list[str] = []
    compiler = IncrementalCompiler(arch, tools)

    def compile_kernels(source: str) -> bytes:
        code = c_names(str(source))
        ptx = with_version(compile_lean(code, arch, tools) if trial else compiler.compile(code), isa)
        made.append(with_register_limits(ptx, free_limits(ptx, arch, registers, tools)))
        # The driver takes PTX as text that ends in a zero.
        return made[-1].encode() + b"\0"

    with _called(compile_kernels):
        yield made


def kernel_ptx(kernel: tvm.tirx.PrimFunc, target: tvm.target.Target, arch: str) -> str:
    """Return the PTX of one kernel, named ``main_kernel``, for looking at what an assembler makes of it.

    It is that of `device_compiler` but for limits of registers, by `compile_lean`.

    Parameters
    ----------
    kernel : tvm.tirx.PrimFunc
        Kernel of a template.
    target : tvm.target.Target
        CUDA target.
    arch : str
        GPU architecture, such as ``sm_53``.

    Raises
    ------
    UserError
        When the CUDA compiler is not installed, or TVM's CUDA backend cannot be loaded.
    RuntimeError
        When the compiler refuses the code.
    """
    import tvm

    tools = find_cuda_tools()
    load_cuda_backend()
    sources: list[str] = []

    def keep(source: str) -> bytes:
        sources.append(c_names(str(source)))
        return b"\0"

    with _called(keep), target:
        tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
    return compile_lean(sources[-1], arch, tools)


def compile_lean(source: str, arch: str, tools: CudaTools) -> str:
    """Compile CUDA C++ to PTX as `compile_to_ptx` does, but for constants of headers that no kernel reads.

    The headers of TVM's prelude, which take NVRTC longer than most kernels do, are included only where the code needs them.

    Raises
    ------
    RuntimeError
        When the compiler refuses the code.
    UserError
        When the compiler does not know the architecture.
    """
    try:
        return compile_to_ptx(without_headers(source), arch, tools)
    except RuntimeError:
        return compile_to_ptx(source, arch, tools)


def without_headers(source: str) -> str:
    """Return generated CUDA code without the part of TVM's prelude that includes headers: fixed-width types and traits.

    Those bring the header of float16 along, which is included instead, in a twentieth of their time, where the code names its
    types.
    """
    halves = "#include <cuda_fp16.h>\n" if "__half" in source else ""
    return re.sub(r"\A\s*#ifdef __CUDACC_RTC__\n.*?\n#endif\n(?=\s*\n#if)", halves, source, count=1, flags=re.DOTALL)


@contextmanager
def _called(compile_kernels: Callable[[str], bytes]) -> Iterator[None]:
    """While this context is entered, TVM's CUDA backend calls a function to compile its modules."""
    import tvm

    before = tvm.get_global_func(_CALLBACK, allow_missing=True)
    tvm.register_global_func(_CALLBACK, compile_kernels, override=True)
    try:
        yield
    finally:
        if before is not None:
            tvm.register_global_func(_CALLBACK, before, override=True)
