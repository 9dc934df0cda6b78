"""What a runtime is given to be counted, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from counting.device_packages import PYTHON, device_package
from counting.emulator import ArmTools
from enet_tvm.artifact import Precision
from enet_tvm.bench.runners import Case
from enet_tvm.compiler.arm.tools import MARK


@dataclass(frozen=True)
class Given:
    """A network and a picture for a runtime on the emulated board.

    Attributes
    ----------
    tools : ArmTools
        Emulator and device.
    root : Path
        The board's file system.
    case : Case
        Weights and size, and the folder for what the runtime's converter writes.
    network : nn.Module
        The network of these weights.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Data type to compute in.
    picture, logits : Path
        Files of float32, N x C x H x W: the normalised picture, and where the logits belong.
    """

    tools: ArmTools
    root: Path
    case: Case
    network: nn.Module
    dtype: Precision
    picture: Path
    logits: Path


@dataclass(frozen=True)
class Program:
    """A program on the emulated device that takes the picture through the network twice and writes the logits.

    After each pass it closes the file descriptor `enet_tvm.compiler.arm.tools.MARK`.

    Attributes
    ----------
    line : sequence of str or Path
        Options of qemu, the program's file, and its arguments.
    environment : mapping of str to str
        Variables beside those of this process.
    """

    line: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A runtime to compare with.

    Attributes
    ----------
    title : str
        What it is called in tables.
    dtypes : tuple of str
        Data types that it computes in, as far as it can.
    prepare : callable
        Converts the network for it and returns its program.
    """

    title: str
    dtypes: tuple[Precision, ...]
    prepare: Callable[[Given], Program]


_PASSES = f"""
import os
def passes():
    for _ in range(2):
        yield
        try:
            os.close({MARK})
        except OSError:
            pass
"""


def python_program(given: Given, packages: Sequence[str], source: str, *arguments: str | Path) -> Program:
    """Return a program of the device's Python.

    Its arguments are the picture, the file for the logits, the data type, height and width, and then those given. It makes a
    forward pass for each item of ``passes()``.
    """
    script = given.case.directory / f"run_{given.logits.stem}.py"
    script.write_text(_PASSES + source, encoding="utf-8")
    sites = [str(device_package(given.tools.directory, name)) for name in ("numpy", *packages)]
    home = given.tools.device.root / "usr"
    # A pool waits for the main thread however many are asked for, and for how long depends on the clock: it shall not spin.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    environment = {**threads, "PYTHONHOME": str(home), "PYTHONPATH": ":".join(sites), "PYTHONHASHSEED": "0"}
    how = (given.dtype, str(given.case.size.height), str(given.case.size.width))
    python = ("-0", "python3", home / f"bin/python{PYTHON}")
    return Program((*python, script, given.picture, given.logits, *how, *arguments), environment)
