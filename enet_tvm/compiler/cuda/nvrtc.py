"""Compiling CUDA C++ to PTX by NVRTC.

TVM has a wrapper of its own, which needs another package, one merged CUDA_PATH, and always adds ``--use_fast_math``: division
and exponentials then differ from PyTorch's by far more than rounding. The five functions of NVRTC's C interface that it takes
are called here directly.

NVRTC 12.9 does not always make the same PTX of the same code: of three compilations of ENet's kernels for sm_90 one, and of ten
for sm_87 three, named the virtual registers of one unrolled kernel otherwise. It depends on addresses: with their randomisation
off (``setarch -R``) six of six were equal.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.errors import UserError


def compile_to_ptx(source: str, arch: str, tools: CudaTools) -> str:
    """Compile CUDA C++, as TVM generates it, to PTX.

    Parameters
    ----------
    source : str
        CUDA C++ code.
    arch : str
        GPU architecture, such as ``sm_53``.
    tools : CudaTools

    Raises
    ------
    RuntimeError
        When the compiler refuses the code; its log is the message.
    UserError
        When the compiler does not know the architecture.
    """
    nvrtc = _load(tools.nvrtc)
    virtual = arch.replace("sm_", "compute_")
    options = [f"--gpu-architecture={virtual}", "-default-device", *(f"-I{path}" for path in tools.includes)]
    program = ctypes.c_void_p()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"enet.cu", 0, None, None))
    try:
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), array):
            log = _text(nvrtc, program, "ProgramLog")
            if "gpu-architecture" in log:
                raise UserError(f"NVRTC of CUDA 12 knows no architecture {arch}; correct the target's gpu.arch")
            raise RuntimeError(f"NVRTC refused the generated code:\n{log}")
        return _text(nvrtc, program, "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    """Return one of a program's results; NVRTC counts the zero at its end."""
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode("utf-8", errors="replace")


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    nvrtc = ctypes.CDLL(str(path))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def _check(nvrtc: ctypes.CDLL, status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()}")
