"""A driver of CUDA that records its calls, and our runtime library over it: libraries for processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiled import compile_request
from shared import made_once

from enet_tvm.device_bundle.building import CUDA_RUNTIME, SOURCES, build_cuda_runtime, compile_c
from enet_tvm.machine import architecture
from enet_tvm.targets import TargetSpec, load_target

DRIVER = "libcuda.so.1"
SOURCE = Path(__file__).parents[1] / "device_bundle/fake_cuda_driver.c"

PRELUDE = """
import ctypes, json, sys
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
folder = sys.argv[1]
driver = ctypes.CDLL(f"{folder}/libcuda.so.1", ctypes.RTLD_GLOBAL)
cuda = ctypes.CDLL(f"{folder}/libcudart.so.13", ctypes.RTLD_GLOBAL)
driver.fake_calls.restype = cuda.cudaGetErrorName.restype = cuda.cudaGetErrorString.restype = c_char_p

def calls():
    made = driver.fake_calls().decode().splitlines()
    driver.fake_forget()
    return made

def answer(**values):
    print(json.dumps(values))
"""
"""What code that runs in such a process finds defined."""


def build_driver(machine: str, folder: Path) -> None:
    """Build the driver for an instruction set."""
    shared = ("-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{SOURCES}", f"-Wl,-soname,{DRIVER}")
    compile_c(machine, *shared, str(SOURCE), "-o", str(folder / DRIVER))


def recorded_target() -> TargetSpec:
    """Return a target with this machine's processor and the GPU that the driver says it has, sm_53."""
    spec = load_target({"x86_64": "gtx-1080", "aarch64": "jetson-tx1"}[architecture()])
    assert spec.gpu is not None
    return spec.model_copy(update={"gpu": spec.gpu.model_copy(update={"arch": "sm_53", "ptx": "6.5"})})


def recorded_artifact() -> Path:
    """Return an artifact of three launches for that target, which takes pictures of 32x24 and returns labels of four classes.

    Raises
    ------
    UserError
        When the CUDA compiler is not installed.
    """
    return made_once("recorded-artifact", _compile)


def _compile(directory: Path) -> None:
    import torch
    from torch import nn

    from enet_tvm.compiler.compile import compile_artifact
    from enet_tvm.networks import NetworkInMemory, WeightsInfo
    from enet_tvm.size import Size

    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2)).eval()
    info = WeightsInfo("small", ("a", "b", "c", "d"), ((0, 0, 0),) * 4, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    given = {"weights": NetworkInMemory(network, info), "size": Size(32, 24), "target": recorded_target()}
    compile_artifact(compile_request(**given, labels=True, command="pytest"), directory)


@dataclass(frozen=True)
class RecordingDriver:
    """The libraries for this machine, in a folder."""

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> RecordingDriver:
        folder.mkdir(exist_ok=True)
        build_driver(architecture(), folder)
        build_cuda_runtime(architecture(), folder / CUDA_RUNTIME)
        return cls(folder)

    def run(self, code: str, *arguments: str, seconds: float = 120, **variables: str) -> dict[str, Any]:
        """Run Python code in a process of its own, the two libraries loaded; what it gives to `answer` comes back."""
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(self.folder), *arguments]
        # By their names, too: that is how the runtime looks for them.
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.folder), **variables}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        assert result.returncode == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return answer
