"""Tiles that fit into a GPU's registers, found by compiling: how many a kernel takes is known once they are assigned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, runtime_checkable

from enet_tvm.compiler.kernels.common.choices import DEFAULTS, Choices
from enet_tvm.compiler.kernels.common.template import Template


@runtime_checkable
class Tile(Protocol):
    """A point of a GPU's template: a launch whose threads keep sums in registers."""

    @property
    def sums(self) -> int:
        """Sums of a thread."""

    def is_like(self, other: Self) -> bool:
        """Whether another launch takes about as many registers."""


class FittingChoices(Choices):
    """Other choices, but for templates whose kernels were found too large a later point.

    Parameters
    ----------
    wanted : Choices
        What to choose where it fits.
    """

    def __init__(self, wanted: Choices = DEFAULTS) -> None:
        self._wanted = wanted
        self._points: dict[Template, Tile] = {}

    def point(self, template: Template) -> Any:
        """Return the point that is wanted, or the last one that `shrink` has found."""
        return self._points[template] if template in self._points else self._wanted.point(template)

    def shrink(self, template: Template, fits: Callable[[Template, Any], bool]) -> bool:
        """Take the next point of a template, of another shape and no more sums, that fits or is the last; say if there is one.

        Parameters
        ----------
        template : Template
            Template whose kernel did not fit.
        fits : callable
            Says of a template and a point of it whether its kernel fits.
        """
        first = self.point(template)
        while (point := self._smaller(template)) is not None:
            self._points[template] = point
            if fits(template, point):
                break
        return self.point(template) != first

    def _smaller(self, template: Template) -> Tile | None:
        point = self.point(template)
        if not isinstance(point, Tile):
            return None
        points = template.points()
        later = points[points.index(point) + 1 :]
        return next((other for other in later if other.sums <= point.sums and not other.is_like(point)), None)
