"""One kernel launch of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enet_tvm.compiler.kernels.common.template import Template
from enet_tvm.compiler.ops import PLANAR, Layout
from enet_tvm.compiler.quantisation.codes import IDENTITY, Codes


@dataclass(frozen=True)
class Launch:
    """What a launch computes, and what it writes.

    Attributes
    ----------
    kernel : str
        Name of the function in the module.
    ops : tuple of str
        Operators fused into it.
    layers : tuple of str
        Sub-modules of the network that it computes; the last one's result is the kernel's output. Empty where TVM made it.
    shape : tuple of int
        Shape of the output as it is stored, of the first one where there are several.
    bytes : int
        Bytes of all its arguments: what it must at least read and write.
    layout : Layout
        Layout of the output.
    codes : Codes
        Meaning of the output's codes; the identity where it has none.
    flops : int
        Operations of its convolution, two for each multiply-add; 0 where it has none.
    template : Template or None
        Template that made the kernel; None for those of TVM's own.
    point : object
        The point that it was made at; None without a template.
    halves : frozenset of int
        Numbers of those of its arguments that are stored as float16 where the template has float32: of a GPU's kernels alone.
    """

    kernel: str
    ops: tuple[str, ...]
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int
    layout: Layout = PLANAR
    codes: Codes = IDENTITY
    flops: int = 0
    template: Template | None = None
    point: Any = None
    halves: frozenset[int] = frozenset()
