"""Oclgrind: an OpenCL device that looks at every access of a kernel, from Debian's package, unpacked and not installed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enet_tvm.compiler.debian_packages import UnavailableError, built_once, cache_directory, download, run, unpack

_KEEP_NAME = "oclgrind-1"
"""Goes up whenever what is built here changes."""

_TYPES = {"float32": "float", "uint8": "uchar", "int32": "int"}
_SECONDS = 120


@dataclass(frozen=True)
class Oclgrind:
    """The simulator of kernels.

    Attributes
    ----------
    command : tuple of str
        The program, and how it finds its libraries.
    """

    command: tuple[str, ...]

    def launch(
        self,
        source: str,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arrays: Mapping[str, np.ndarray],
        written: Sequence[str],
        folder: Path,
    ) -> tuple[dict[str, np.ndarray], str]:
        """Run a launch.

        Parameters
        ----------
        source : str
            OpenCL C.
        kernel : str
            Name of the kernel, whose arguments are pointers to global memory.
        grid, block : sequence of int
            Work groups, and work items of each, in three dimensions.
        arrays : mapping
            By the arguments' names, without TVM's suffix.
        written : sequence of str
            Those that the kernel writes.
        folder : Path
            Where to put the input.

        Returns
        -------
        (dict, str)
            The written arrays afterwards, and what was wrong: data races, uninitialised values, accesses outside; empty where
            nothing was.
        """
        signature = re.search(rf"__kernel void {kernel}\(([^)]*)\)", source)
        assert signature is not None, f"there is no kernel {kernel} in this source"
        names = [part.split()[-1].removesuffix("_ptr") for part in signature[1].split(",")]
        (folder / "kernel.cl").write_text(source, encoding="utf-8")
        lines = ["kernel.cl", kernel, " ".join(str(g * b) for g, b in zip(grid, block, strict=True)), " ".join(map(str, block))]
        for name in names:
            array = arrays[name]
            head = f"size={array.nbytes} {_TYPES[str(array.dtype)]}"
            if name in written:
                lines.append(f"<{head} fill=0 dump>")
            else:
                lines.append(f"<{head}> " + " ".join(repr(value) for value in array.ravel().tolist()))
        (folder / "kernel.sim").write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Unoptimised: its check of uninitialised values does not know LLVM's `freeze`.
        options = ["--disable-pch", "--data-races", "--uninitialized", "--build-options", "-cl-opt-disable", "kernel.sim"]
        done = subprocess.run(
            [*self.command, *options], cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr[:2000]
        results = {}
        for name in written:
            values = [float(value) for value in re.findall(rf"^  {name}_ptr\[\d+\] = (\S+)$", done.stdout, flags=re.MULTILINE)]
            results[name] = np.array(values, arrays[name].dtype).reshape(arrays[name].shape)
        return results, done.stderr.strip()


def oclgrind() -> Oclgrind:
    """Return the simulator, downloaded the first time; an installed one is taken as it is.

    Raises
    ------
    UnavailableError
        When it cannot be had here.
    """
    if installed := shutil.which("oclgrind-kernel"):
        return Oclgrind((installed,))
    if platform.system() != "Linux":
        raise UnavailableError("Oclgrind is taken from Debian")
    root = built_once(cache_directory() / _KEEP_NAME, _build) / "root"
    loader = next((file for file in sorted(root.glob("lib*/ld-linux-*.so.*"))), None)
    if loader is None:
        raise UnavailableError("Debian's packages for this machine have no loader of programs")
    places = [str(root / place / f"{platform.machine()}-linux-gnu") for place in ("usr/lib", "lib")]
    command = (str(loader), "--library-path", ":".join(places), str(root / "usr/bin/oclgrind-kernel"))
    run([*command, "--version"])
    return Oclgrind(command)


def _build(directory: Path) -> None:
    unpack(download(directory / "apt", platform.machine(), ["oclgrind"]), directory / "root")
    shutil.rmtree(directory / "apt")
