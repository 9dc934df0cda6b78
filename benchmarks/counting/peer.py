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
class Command:
    """A program on the emulated device.

    Attributes
    ----------
    line : sequence of str or Path
        Options of qemu, the program's file, and its arguments.
    environment : mapping of str to str
        Variables beside those of this process.
    """

    line: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)


Program = Callable[[int], Command]
"""The command that takes the picture through the network so many times and writes the logits of the last."""


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


def python_program(given: Given, packages: Sequence[str], source: str, *arguments: str | Path) -> Program:
    """Return a program of the device's Python.

    Its arguments are the picture, the file for the logits, the data type, passes, height and width, and then those given.
    """
    script = given.case.directory / f"run_{given.logits.stem}.py"
    script.write_text(source, encoding="utf-8")
    sites = [str(device_package(given.tools.directory, name)) for name in ("numpy", *packages)]
    home = given.tools.device.root / "usr"
    # A pool waits for the main thread however many are asked for, and for how long depends on the clock: it shall not spin.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    environment = {**threads, "PYTHONHOME": str(home), "PYTHONPATH": ":".join(sites), "PYTHONHASHSEED": "0"}

    def command(passes: int) -> Command:
        size = given.case.size
        how = (given.dtype, str(passes), str(size.height), str(size.width))
        line = ("-0", "python3", home / f"bin/python{PYTHON}", script, given.picture, given.logits, *how, *arguments)
        return Command(line, environment)

    return command
