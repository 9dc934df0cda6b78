"""Machine code of a GPU, and the registers and memory that each kernel takes, from its assembler, ptxas."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.compiler.cuda.ptx import split_entries
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.errors import UserError
from enet_tvm.machine import default_threads

_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class KernelResources:
    """Registers and memory that one kernel takes.

    Attributes
    ----------
    name : str
        Name of the kernel's entry.
    registers : int
        32-bit registers per thread.
    spill_bytes : int
        Bytes written to memory and read back per thread, both counted, because there were not enough registers.
    stack_bytes : int
        Bytes of local memory per thread: an array that did not fit into registers.
    shared_bytes : int
        Bytes of shared memory per block.
    """

    name: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Assembled:
    """Device code after the assembler.

    Attributes
    ----------
    resources : tuple of KernelResources
        What each kernel takes, by name.
    cubins : tuple of bytes
        The machine code, ELF files that `enet_tvm.compiler.cuda.machine_code` reads; each has one kernel or more.
    """

    resources: tuple[KernelResources, ...]
    cubins: tuple[bytes, ...]


def assemble(ptx: str, arch: str, tools: CudaTools) -> tuple[KernelResources, ...]:
    """Assemble PTX for an architecture and return what each kernel takes, by name; it raises what `assembled` does."""
    return assembled(ptx, arch, tools).resources


def assembled(ptx: str, arch: str, tools: CudaTools) -> Assembled:
    """Assemble PTX for an architecture, its kernels apart and several at once.

    What was assembled before is kept: while a network is compiled, most of its kernels come here more than once.

    Raises
    ------
    UserError
        When ptxas rejects it: for what its ISA version, or the architecture, lacks.
    """
    parts = split_entries(ptx)
    with ThreadPoolExecutor(default_threads().threads) as pool:
        done = list(pool.map(functools.partial(_assembled, arch=arch, tools=tools), parts))
    resources = sorted((kernel for part in done for kernel in part.resources), key=lambda kernel: kernel.name)
    return Assembled(tuple(resources), tuple(cubin for part in done for cubin in part.cubins))


@functools.lru_cache(maxsize=512)
def _assembled(ptx: str, arch: str, tools: CudaTools) -> Assembled:
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
        file, cubin = Path(directory, "kernels.ptx"), Path(directory, "kernels.cubin")
        file.write_text(ptx, encoding="utf-8")
        command = [str(tools.ptxas), "-v", f"-arch={arch}", str(file), "-o", str(cubin)]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"cannot run {tools.ptxas} ({error}); install it again with the extra cuda") from error
        code = b"" if result.returncode else cubin.read_bytes()
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines() if "error" in line or "fatal" in line]
        reason = re.sub(r"^ptxas \S+, ", "", (lines or ["it gave no reason"])[0].replace(str(file), "the code"))
        raise UserError(f"ptxas rejects the device code for {arch} ({reason}); correct gpu.arch and gpu.ptx of the target")
    return Assembled(parse_resources(result.stderr), (code,))


def parse_resources(log: str) -> tuple[KernelResources, ...]:
    """Return what ``ptxas -v`` printed of each kernel, sorted by name."""
    found = []
    for block in log.split("Compiling entry function '")[1:]:
        name = block.partition("'")[0]
        found.append(
            KernelResources(
                name=name,
                registers=_figure(block, r"Used (\d+) registers"),
                spill_bytes=_figure(block, r"(\d+) bytes spill stores") + _figure(block, r"(\d+) bytes spill loads"),
                stack_bytes=_figure(block, r"(\d+) bytes stack frame"),
                shared_bytes=_figure(block, r"(\d+) bytes smem"),
            )
        )
    return tuple(sorted(found, key=lambda kernel: kernel.name))


def _figure(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0
