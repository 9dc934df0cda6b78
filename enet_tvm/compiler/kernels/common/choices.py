"""The point and the schedule of each kernel, which the pipeline asks for before it makes one."""

from __future__ import annotations

from typing import Any

import tvm

from enet_tvm.compiler.kernels.common.template import Template


class Choices:
    """The defaults everywhere; tuning overrides what it has measured."""

    def point(self, template: Template) -> Any:
        """Return the point to make a template's kernel at; asked once for each launch, in launch order.

        Templates without parameters (`enet_tvm.compiler.kernels.common.template.Fixed`) are not asked about.
        """
        return template.default

    def schedule(self, name: str, function: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc | None:
        """Return the scheduled form of a function that no template made, None for the pipeline's own schedule."""
        return None


DEFAULTS = Choices()
