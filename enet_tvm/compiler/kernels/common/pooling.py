"""What the templates of pooling and unpooling have in common, whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from tvm import relax

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.template import Fixed, OnlyPoint
from enet_tvm.compiler.ops import MaxPool2DWithWindow, MaxUnpool2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class PoolingTemplate(Fixed):
    """A template of ``enet.max_pool2d_with_window`` or ``enet.max_unpool2d``, which has no parameters.

    Attributes
    ----------
    spec : MaxPool2DWithWindow or MaxUnpool2D
        The pooling or unpooling that it computes.
    """

    spec: MaxPool2DWithWindow | MaxUnpool2D

    @classmethod
    def of(cls, spec: Any, unit: Any) -> Self:
        """Return the template for a call."""
        return cls(spec)

    @property
    def name(self) -> str:
        """Name of the kernel, the same for every shape: its operator's."""
        return self.spec.operators[0]

    def operands(self, point: OnlyPoint, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return the data and, of an unpooling, the window indices."""
        return list(arguments)
