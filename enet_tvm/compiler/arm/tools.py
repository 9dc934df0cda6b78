"""qemu's user mode with a plugin that counts, and LLVM's scheduling models; from Debian's packages, no root."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enet_tvm.compiler.arm.instructions import Block, Loop
from enet_tvm.compiler.debian_packages import UnavailableError, built_once, cache_directory, download, unpack

_KEEP_NAME = "arm-tools-3"
"""Goes up whenever what is built here changes."""
MARK = 0x656E6574
"""File descriptor that a program closes, which has none of that number, to have what it executed so far counted by itself."""
_PACKAGES = ("qemu-user", "llvm-19")
_FEATURES = "+fullfp16,+dotprod,+bf16,+i8mm,+sve"
"""What the disassembler knows of; a processor that lacks one has no such instructions to disassemble."""
_SECONDS = 600


@dataclass(frozen=True)
class Schedule:
    """What LLVM's model of a processor says of a loop.

    Attributes
    ----------
    cycles : float
        Of an iteration, all loads from the first cache.
    port : str
        The resource that is busy the longest.
    busy : float
        Share of the cycles in which it is.
    """

    cycles: float
    port: str
    busy: float


@dataclass(frozen=True)
class ArmTools:
    """The emulator with the plugin, and LLVM.

    Attributes
    ----------
    directory : Path
        Where the packages are unpacked and the plugin is.
    """

    directory: Path

    def blocks_under(
        self, root: Path, program: Sequence[str | Path], cpu: str, environment: Mapping[str, str] | None = None
    ) -> list[Block]:
        """Run an aarch64 program and return the blocks of code that it executed.

        Parameters
        ----------
        root : Path
            Folder in which the program's loader and libraries are looked for; without them for one that is linked statically.
        program : sequence of str or Path
            The program's file and its arguments.
        cpu : str
            What qemu calls the processor.
        environment : mapping of str to str, optional
            Variables beside those of this process.

        Raises
        ------
        RuntimeError
            When the program fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            return _read_blocks(self._execute(Path(folder), root, program, cpu, environment))

    def blocks_before_mark(
        self, root: Path, program: Sequence[str | Path], cpu: str, environment: Mapping[str, str] | None = None
    ) -> list[Block]:
        """Run an aarch64 program and return the blocks that it executed between the last two times that it closed `MARK`.

        Parameters are those of `blocks_under`.

        Raises
        ------
        RuntimeError
            When the program fails, or does not close it twice.
        """
        with tempfile.TemporaryDirectory() as folder:
            out = self._execute(Path(folder), root, program, cpu, environment)
            marks = sorted(out.parent.glob(f"{out.name}.*"), key=lambda file: int(file.suffix[1:]))
            if len(marks) < 2:
                raise RuntimeError(f"'{' '.join(map(str, program))}' ended with {len(marks)} marks, and two are the least")
            return _read_blocks(marks[-1])

    def _execute(
        self, folder: Path, root: Path, program: Sequence[str | Path], cpu: str, environment: Mapping[str, str] | None
    ) -> Path:
        """Run an aarch64 program and return the file that the plugin wrote, beside which are those of marks."""
        out = folder / "blocks"
        command = self._host("usr/bin/qemu-aarch64", "-plugin", self.directory / "qemu_blocks.so", "-cpu", cpu)
        command += ["-L", str(root), *map(str, program)]
        _run(command, {**os.environ, **(environment or {}), "QEMU_BLOCKS": str(out)})
        return out

    def assembly(self, words: Sequence[int]) -> list[str]:
        """Return instructions as text, one for each."""
        code = "\n".join(" ".join(f"0x{byte:02x}" for byte in word.to_bytes(4, "little")) for word in words)
        options = ("--disassemble", "--triple=aarch64", f"--mattr={_FEATURES}")
        said = _run(self._host("usr/lib/llvm-19/bin/llvm-mc", *options), text=code)
        return [line for line in said.splitlines() if line.strip() and not line.lstrip().startswith(".")]

    def schedule(self, loop: Loop, cpu: str) -> Schedule:
        """Return what LLVM's model of a processor says of a loop that runs again and again."""
        return self.schedules([loop.words], cpu)[0]

    def schedules(self, pieces: Sequence[Sequence[int]], cpu: str, iterations: int = 100) -> list[Schedule]:
        """Return what LLVM's model of a processor says of pieces of code, each of which runs so often, one run after the other.

        What the model does not know of a piece's instructions, such as calls, is left out.
        """
        lines = iter(self.assembly([word for words in pieces for word in words]))
        text = "\n".join(
            line
            for number, words in enumerate(pieces)
            for line in (f"# LLVM-MCA-BEGIN {number}", *itertools.islice(lines, len(words)), "# LLVM-MCA-END")
        )
        options = ("--mtriple=aarch64", f"--mcpu={cpu}", f"--mattr={_FEATURES}", f"--iterations={iterations}", "--json")
        skip = "--skip-unsupported-instructions=any"
        said = json.loads(_run(self._host("usr/lib/llvm-19/bin/llvm-mca", *options, skip), text=text + "\n"))
        resources = said["TargetInfo"]["Resources"]
        return [self._schedule(region, resources) for region in said["CodeRegions"]]

    @staticmethod
    def _schedule(region: dict[str, Any], resources: Sequence[str]) -> Schedule:
        summary = region["SummaryView"]
        cycles = summary["TotalCycles"] / summary["Iterations"]
        # The pressure of the whole loop comes after that of its instructions.
        whole = len(region["Instructions"])
        busy = {
            entry["ResourceIndex"]: entry["ResourceUsage"]
            for entry in region["ResourcePressureView"]["ResourcePressureInfo"]
            if entry["InstructionIndex"] == whole
        }
        index = max(busy, key=lambda i: busy[i])
        return Schedule(cycles, resources[index], busy[index] / cycles)

    def _host(self, program: str, *options: str | Path) -> list[str]:
        """Return a command line of a program in the packages, run by their own loader and libraries."""
        root = self.directory / "host"
        machine = f"{platform.machine()}-linux-gnu"
        libraries = ":".join(str(root / part) for part in (f"lib/{machine}", f"usr/lib/{machine}", "usr/lib/llvm-19/lib"))
        loader = next(path for path in sorted(root.glob("lib*/ld-linux-*")))
        return [str(loader), "--library-path", libraries, str(root / program), *map(str, options)]


def arm_tools(directory: Path | None = None) -> ArmTools:
    """Return the tools, built the first time.

    Raises
    ------
    UnavailableError
        When they cannot be built here.
    """
    return ArmTools(built_once(directory or cache_directory() / _KEEP_NAME, _build))


def _read_blocks(file: Path) -> list[Block]:
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return [Block(int(n), int(at, 16), tuple(int(word, 16) for word in words)) for n, at, *words in lines]


def _build(directory: Path) -> None:
    packages = download(directory / "apt", platform.machine(), list(_PACKAGES))
    if not any(package.name.startswith("qemu-user_1%3a7.2") for package in packages):
        raise UnavailableError("the plugin that counts is for qemu 7.2, that of Debian 12, and apt has another here")
    unpack(packages, directory / "host")
    shutil.rmtree(directory / "apt")
    plugin = directory / "qemu_blocks.so"
    source = Path(__file__).with_name("qemu_blocks.c")
    _run([sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-Wl,-z,undefs", "-o", str(plugin), str(source)])


def _run(command: list[str], environment: Mapping[str, str] | None = None, text: str | None = None) -> str:
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"'{' '.join(command)}' failed: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout
