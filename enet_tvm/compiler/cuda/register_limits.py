"""Limits of registers that hold on the device, whose driver translates the PTX with a compiler of its own.

The assembler here is of CUDA 12, a Jetson TX1's of CUDA 10.2, and what one of them finds a kernel to take, the other need not.
A kernel that takes more than its tile was chosen for has fewer threads beside it to hide latency. A limit in the PTX itself
binds both. But it makes an assembler plan otherwise, too: it uses all that it is allowed, and with a limit far above what a
kernel would take by itself it spilled where without one it did not (ptxas 11.7 and 12.9 alike). So a kernel is limited to what
it takes, and only where that makes it spill nothing.
"""

from __future__ import annotations

from enet_tvm.compiler.cuda.ptx import with_register_limits
from enet_tvm.compiler.cuda.ptxas import assemble
from enet_tvm.compiler.cuda.tools import CudaTools

_GRANULE = 8
"""Registers by which a multiprocessor hands them to a thread: one that takes 57 has 64."""


def free_limits(ptx: str, arch: str, most: int, tools: CudaTools) -> dict[str, int]:
    """Return the limits of registers that cost nothing, by the name of the kernel's entry.

    Parameters
    ----------
    ptx : str
        PTX of a module without limits.
    arch : str
        GPU architecture, such as ``sm_53``.
    most : int
        32-bit registers that a thread of the target may take; a kernel that takes more is left for the inspection to refuse.
    tools : CudaTools

    Returns
    -------
    dict of str to int
        Registers that each kernel takes, rounded up to what a multiprocessor hands out; without those kernels that spill, or
        would if limited to that.

    Raises
    ------
    UserError
        When ptxas rejects the PTX.
    """
    taken = {
        kernel.name: min(most, -(-kernel.registers // _GRANULE) * _GRANULE)
        for kernel in assemble(ptx, arch, tools)
        if not kernel.spill_bytes and kernel.registers <= most
    }
    limited = assemble(with_register_limits(ptx, taken), arch, tools)
    return {kernel.name: taken[kernel.name] for kernel in limited if kernel.name in taken and not kernel.spill_bytes}
