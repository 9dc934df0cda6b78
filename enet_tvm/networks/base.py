"""Base class of every network of this project."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class SegmentationNetwork(nn.Module):
    """A network that takes pictures and returns logits of the same height and width.

    Its forward pass takes N x 3 x H x W float32, normalised, and returns N x num_classes x H x W float32 logits. What else
    there is to know of it, such as which sides it takes, is in its `enet_tvm.networks.definition.NetworkDefinition`.

    Attributes
    ----------
    name : str
        The network's key in `enet_tvm.networks.table.NETWORKS`.
    num_classes : int
        Number of output channels.
    """

    name: ClassVar[str]
    num_classes: int

    def variant_json(self) -> dict[str, Any]:
        """Return the variant options that differ from the paper's, as plain data; empty for a network without variants."""
        return {}
