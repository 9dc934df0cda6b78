"""Where the CUDA compiler's parts are: NVIDIA's Python packages, which the extra `cuda` installs."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.errors import UserError

INSTALL = "pip install 'enet-tvm[cuda]'"
"""Command that installs everything that compiling for a GPU takes."""


@dataclass(frozen=True)
class CudaTools:
    """The parts of a CUDA toolkit that compiling to PTX, and checking it, takes.

    Attributes
    ----------
    nvrtc : Path
        The library of the compiler from CUDA C++ to PTX.
    ptxas : Path
        The assembler, which knows every architecture's registers.
    includes : tuple of Path
        Directories of headers. NVRTC takes several, so the packages' own need not be merged under one CUDA_PATH.
    """

    nvrtc: Path
    ptxas: Path
    includes: tuple[Path, ...]


def find_cuda_tools() -> CudaTools:
    """Return the installed tools.

    Raises
    ------
    UserError
        When one of them is missing: it says the command that installs them all.
    """
    includes = [_part(f"nvidia.{package}", "include") for package in ("cuda_runtime", "cuda_nvcc", "cuda_cccl")]
    nvrtc, ptxas = _part("nvidia.cuda_nvrtc", "lib/libnvrtc.so.12"), _part("nvidia.cuda_nvcc", "bin/ptxas")
    if nvrtc is None or ptxas is None or None in includes or not os.access(ptxas, os.X_OK):
        raise UserError(f"the CUDA compiler is not installed, and GPUs cannot be compiled for without it; run: {INSTALL}")
    return CudaTools(nvrtc, ptxas, tuple(path for path in includes if path is not None))


def _part(package: str, path: str) -> Path | None:
    """Return a file or directory of a package, None where either is missing."""
    folder = _folder(package)
    return folder / path if folder is not None and (folder / path).exists() else None


def _folder(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # There is not even the namespace `nvidia`.
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None
