"""ExecuTorch with XNNPACK: the portable form, lowered on this machine, and run by a small program with the wheel's libraries.

Its Python package would need PyTorch on the device; the libraries beside it do not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from counting.device_packages import device_package, pinned
from counting.peer import Given, Peer, Program
from enet_tvm.bench.runners import executorch
from enet_tvm.compiler.arm.tools import MARK
from enet_tvm.compiler.debian_packages import UnavailableError, built_once

_SOURCE = Path(__file__).with_name("executorch_device.cpp")
_LIBRARIES = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack", "executorch_threadpool")


def _prepare(given: Given) -> Program:
    model = executorch.converted(given.case, given.dtype)
    return Program((device_program(given.tools.directory), model, given.picture, given.logits, str(MARK)))


def device_program(directory: Path) -> Path:
    """Return the program for the device, compiled the first time.

    Raises
    ------
    UnavailableError
        When the package for aarch64 is not to be had, or the program is not compiled.
    """
    package = device_package(directory, "executorch") / "executorch"

    def build(folder: Path) -> None:
        include, libraries = package / "include", package / "lib"
        options = ["-target", "aarch64-linux-gnu.2.34", "-std=c++17", "-O1", f"-I{include}"]
        options += ["-DC10_USING_CUSTOM_GENERATED_MACROS", f"-I{include}/executorch/runtime/core/portable_type/c10"]
        # The libraries are of GCC's standard library and this program is of Clang's: of what both share, a variant is laid
        # out alike with this setting, and inline functions of one side stay out of the other.
        options += ["-D_LIBCPP_ABI_VARIANT_INDEX_TYPE_OPTIMIZATION", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
        # Backend and kernels register themselves when they are loaded; nothing calls them by name.
        linked = ["-Wl,--no-as-needed", f"-Wl,-rpath,{libraries}"]
        linked += [str(libraries / f"lib{name}.so") for name in _LIBRARIES]
        command = [sys.executable, "-m", "ziglang", "c++", *options, "-o", str(folder / "run"), str(_SOURCE), *linked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"the program that runs ExecuTorch is not compiled: {done.stderr.strip()[-300:]}")

    return built_once(directory / f"{pinned('executorch')}-program", build) / "run"


PEER = Peer("ExecuTorch", ("float32", "int8"), _prepare)
