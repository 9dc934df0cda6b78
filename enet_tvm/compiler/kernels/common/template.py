"""The kernel templates: what one kernel computes, for which calls, from which operands, and the parameters that may be chosen.

A *template* is a frozen dataclass of everything that fixes what a kernel computes; a *point* is a frozen dataclass of
the parameters that only change how fast it does. Both are plain values, so that `dataclasses.asdict` of them is JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import tvm
from tvm import relax

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.ops import Spec
from enet_tvm.compiler.quantisation.codes import Codes


@runtime_checkable
class Template(Protocol):
    """What one kernel computes on one kind of target, and how it may be varied."""

    spec_type: ClassVar[type]
    """Type that describes the calls it covers, such as `enet_tvm.compiler.ops.FusedConv2D`."""

    point_type: ClassVar[type]
    """The dataclass of its points."""

    @classmethod
    def covers(cls, spec: Any, unit: Any) -> bool:
        """Whether it has a kernel for a call on a target, and is the one to be taken if none before it has.

        Parameters
        ----------
        spec : object
            The call as a `spec_type`, in layouts that were chosen or that are asked about (`Templates.forms`).
        unit : VectorUnit or GpuUnit
            Vector registers of the target's processor, or its GPU.
        """

    @classmethod
    def of(cls, spec: Any, unit: Any) -> Self:
        """Return the template for a call that it covers."""

    @property
    def name(self) -> str:
        """Name of the kernel: what it computes and on what shape."""

    @property
    def default(self) -> Any:
        """The point that is taken where tuning knows no better one."""

    def points(self) -> list[Any]:
        """Return the points worth measuring, the default first, those most like it next."""

    def kernel(self, point: Any) -> tvm.tirx.PrimFunc:
        """Return the kernel at a point."""

    def operands(self, point: Any, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return the arguments of the kernel at a point, its outputs left out: tensors, and constants packed as it reads them.

        Parameters
        ----------
        point : object
            The point, a `point_type`.
        arguments : sequence of relax.Expr
            Arguments of the operator's call.
        codes : TensorCodes
            Meaning of the codes that tensors are stored as.
        own : Codes
            Meaning of the output's codes.
        """

    def features(self, point: Any) -> list[float]:
        """Return numbers by which a cost model tells points, and kernels, apart; as many for all templates but `Fixed` ones."""


@dataclass(frozen=True)
class OnlyPoint:
    """The point of a template that has no parameters."""


class Fixed:
    """What templates without parameters have in common: nothing of them is asked of `Choices`, and nothing tuned."""

    point_type: ClassVar[type] = OnlyPoint

    @property
    def default(self) -> OnlyPoint:
        """The only point."""
        return OnlyPoint()

    def points(self) -> list[OnlyPoint]:
        """Return the only point."""
        return [OnlyPoint()]

    def features(self, point: OnlyPoint) -> list[float]:
        """Return nothing: there are no points to tell apart."""
        return []


@dataclass(frozen=True)
class Templates:
    """The templates of a device for one target, in the order in which they are tried: the first that covers a call is taken.

    Attributes
    ----------
    unit : VectorUnit or GpuUnit
        Vector registers of the target's processor, or its GPU.
    types : tuple of type
        Classes of the templates, in that order.
    forms : callable
        Function that returns a call in each of the layouts that its tensors may have on this device, the preferred first.
    """

    unit: Any
    types: tuple[type[Template], ...]
    forms: Callable[[Any], list[Any]]

    def find(self, spec: Spec | None) -> Template | None:
        """Return the template for a call; None when none covers it, or it is none of the dialect's."""
        for kind in self.types:
            if isinstance(spec, kind.spec_type) and kind.covers(spec, self.unit):
                return kind.of(spec, self.unit)
        return None

    def covered_forms(self, spec: Any) -> list[Any]:
        """Return those of a call's `forms` that some template covers, the preferred one first."""
        return [form for form in self.forms(spec) if self.find(form) is not None]
