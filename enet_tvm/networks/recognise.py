"""Recognition of a network from its tensors, whose names and shapes tell its variant and its number of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.definition import NetworkDefinition
from enet_tvm.networks.weights import load_tensors


def network_of_tensors(
    definition: NetworkDefinition, tensors: Mapping[str, Tensor], told: Mapping[str, Any], source: str, void: int | None = None
) -> SegmentationNetwork:
    """Return the network of tensors under our names, in eval mode.

    Parameters
    ----------
    definition : NetworkDefinition
        Record of the network.
    tensors : mapping of str to Tensor
        Tensors by the names of that network here; of any floating-point dtype.
    told : mapping
        Options of its variants that tensors do not show; the paper's by default.
    source : str
        Name of the tensors' origin, which begins error sentences.
    void : int, optional
        Number of an output channel to leave out.

    Raises
    ------
    UserError
        When the tensors are not those of such a network, or not numbers.
    """
    definition.require_no_options(told, source)
    schema, head = definition.variants, definition.head
    variant = () if schema is None else (schema.from_tensors(tensors, told, source),)
    network = definition.build(head.outputs(tensors, source) - (void is not None), *variant)
    load_tensors(network, tensors if void is None else head.without_output(tensors, void), source)
    return network.eval()
