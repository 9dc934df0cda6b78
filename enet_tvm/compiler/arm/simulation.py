"""A kernel for a 64-bit ARM processor on an emulated one: its instructions, and the cycles that a model makes of them.

The kernel is linked with a program of its own that has nothing of TVM's runtime (``kernel_program.c``). What it computes is for
tests: where it is only counted, its arguments are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enet_tvm.compiler.arm.cost import Cost, cost_of, pieces_of
from enet_tvm.compiler.arm.instructions import Block
from enet_tvm.compiler.arm.tools import ArmTools
from enet_tvm.compiler.linking import compile_with, ffi_headers, zig_linker

if TYPE_CHECKING:
    import tvm

_SOURCE = Path(__file__).with_name("kernel_program.c")
_CPU = "max"
"""qemu's processor that has every instruction: what is counted was compiled for one target, and does not ask."""


@dataclass(frozen=True)
class Simulation:
    """How kernels are simulated.

    Attributes
    ----------
    target : tvm.target.Target
        Target to compile for.
    model : str
        LLVM's model of its processor.
    threads : int
        Threads that share a kernel's parallel loop; the cost is that of the busiest.
    tools : ArmTools
        Emulator and LLVM.
    program : Path
        Object file of the program, as `build_program` makes it.
    """

    target: tvm.target.Target
    model: str
    threads: int
    tools: ArmTools
    program: Path

    def cost(self, mod: tvm.IRModule, directory: Path) -> Cost:
        """Compile a module of one function ``main``, execute it, and return its cost.

        Parameters
        ----------
        mod : tvm.IRModule
        directory : Path
            Folder for the program, which is as large as a kernel.

        Raises
        ------
        UserError
            When it cannot be linked.
        RuntimeError
            When it cannot be run.
        """
        program = self._link(mod, directory)
        arguments = _arguments(mod["main"])

        def run(calls: int, task: int) -> list[Block]:
            words = map(str, (calls, task, self.threads))
            return self.tools.blocks_under(directory, [program, *words, *arguments], _CPU)

        # The first thread has at least as many iterations as any other, but at the picture's edge they may be shorter.
        once = {task: run(1, task) for task in sorted({0, min(1, self.threads - 1)})}
        task = max(once, key=lambda task: sum(block.executed * len(block.words) for block in once[task]))
        pieces = pieces_of(once[task], run(2, task))
        program.unlink()
        return cost_of(pieces, self.model, self.tools)

    def computed(self, mod: tvm.IRModule, inputs: Sequence[np.ndarray], directory: Path) -> np.ndarray:
        """Return what a module of one function ``main`` computes on one thread: its last argument, those before it given.

        Parameters
        ----------
        mod : tvm.IRModule
        inputs : sequence of ndarray
            Arguments but the last, in the shapes and dtypes that the function takes.
        directory : Path
            Folder for the program, and for the arguments.

        Raises
        ------
        UserError
            When the program cannot be linked.
        RuntimeError
            When it cannot be run.
        """
        out = mod["main"].params[-1].ty
        arrays = [*inputs, np.zeros([int(extent) for extent in out.shape], str(out.dtype))]
        texts = []
        for number, (text, array) in enumerate(zip(_arguments(mod["main"]), arrays, strict=True)):
            file = directory / f"argument{number}"
            np.ascontiguousarray(array).tofile(file)
            texts.append(f"{text}={file}")
        self.tools.blocks_under(directory, [self._link(mod, directory), "1", "0", "1", *texts], _CPU)
        return np.fromfile(file, arrays[-1].dtype).reshape(arrays[-1].shape)

    def _link(self, mod: tvm.IRModule, directory: Path) -> Path:
        """Return the program around a compiled kernel."""
        import tvm

        kernel, program = directory / "kernel.o", directory / "kernel"
        tvm.compile(mod, self.target).mod.write_to_file(str(kernel), "obj")
        _compile(str(self.program), str(kernel), "-static", "-lm", "-o", str(program))
        kernel.unlink()
        return program


def build_program(directory: Path) -> Path:
    """Compile the program around a kernel, but for the kernel, and return the object file.

    Raises
    ------
    UserError
        When Zig's compiler is missing or cannot be run.
    """
    out = directory / "kernel_program.o"
    warnings = ("-Wall", "-Wextra", "-Werror")
    _compile("-std=c11", "-O2", *warnings, f"-I{ffi_headers()}", "-c", str(_SOURCE), "-o", str(out))
    return out


def _compile(*arguments: str) -> None:
    # musl's C library links statically, so that the emulator needs none.
    compile_with(zig_linker("aarch64", "linux-musl"), *arguments)


def _arguments(kernel: tvm.tirx.PrimFunc) -> list[str]:
    """Return types and shapes of a kernel's arguments, as the program takes them."""
    import tvm_ffi

    tensors = [parameter.ty for parameter in kernel.params]
    shapes = [",".join(str(int(extent)) for extent in tensor.shape) for tensor in tensors]
    dtypes = [tvm_ffi.dtype(str(tensor.dtype)) for tensor in tensors]
    return [f"{dtype.type_code}:{dtype.bits}:{shape}" for dtype, shape in zip(dtypes, shapes, strict=True)]
