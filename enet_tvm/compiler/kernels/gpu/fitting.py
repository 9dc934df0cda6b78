"""Tiles that fit into a GPU's registers, found by compiling: how many a kernel takes is known once they are assigned."""

from __future__ import annotations

from typing import Any

from enet_tvm.compiler.kernels.common.choices import Choices
from enet_tvm.compiler.kernels.common.template import Template
from enet_tvm.compiler.kernels.gpu.tile import GpuTile


class FittingChoices(Choices):
    """The defaults, but for templates whose kernels were found too large a later point."""

    def __init__(self) -> None:
        self._points: dict[Template, GpuTile] = {}

    def point(self, template: Template) -> Any:
        """Return the default, or the last point that `shrink` has found."""
        return self._points.get(template, template.default)

    def shrink(self, template: Template) -> bool:
        """Take the next point of a template of another shape and no more sums; say whether there is one."""
        point = self.point(template)
        if not isinstance(point, GpuTile):
            return False
        points = template.points()
        later = points[points.index(point) + 1 :]
        smaller = next((other for other in later if other.sums <= point.sums and not other.is_like(point)), point)
        self._points[template] = smaller
        return smaller != point
