"""Every network of the project: to add one, write its file and its record here (docs/networks.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks.definition import EncoderPart, Head, NetworkDefinition, PublishedCosts
from enet_tvm.networks.enet import ENet
from enet_tvm.networks.erfnet import ERFNet
from enet_tvm.networks.segnet import SMALLEST_SIDE, SegNet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.size import Size

DEFAULT_NETWORK = "enet"
"""Name of the network that is trained or described by default."""

_PAPERS_SIZE = Size(640, 360)
"""Size of the picture for which the ENet paper (table 3) counts its own FLOPs and SegNet's."""

_ALL = (
    NetworkDefinition(
        name="enet",
        title="ENet",
        paper="Paszke, Chaurasia, Kim, Culurciello, 2016, arXiv 1606.02147",
        build=ENet,
        head=Head("fullconv", transposed=True),
        layers=re.compile(r"initial|bottleneck[1-5]_\d|fullconv"),
        encoder=EncoderPart(
            encode=lambda network, pictures: network.encode(pictures)[0],
            channels=128,
            reduction=8,
            decoder_layers=("bottleneck4_0", "bottleneck4_1", "bottleneck4_2", "bottleneck5_0", "bottleneck5_1", "fullconv"),
        ),
        variants=ENetVariant,
        costs=PublishedCosts(370_000, 3_830_000_000, _PAPERS_SIZE),
    ),
    NetworkDefinition(
        name="segnet",
        title="SegNet",
        paper="Badrinarayanan, Kendall, Cipolla, 2015, arXiv 1511.00561",
        build=SegNet,
        head=Head("classifier"),
        layers=re.compile(r"(en|de)coder[1-5]|classifier"),
        smallest_side=SMALLEST_SIDE,
        costs=PublishedCosts(29_460_000, 286_030_000_000, _PAPERS_SIZE),
    ),
    NetworkDefinition(
        name="erfnet",
        title="ERFNet",
        paper="Romera, Álvarez, Bergasa, Arroyo, 2018, IEEE T-ITS 19(1), 263-272",
        build=ERFNet,
        head=Head("output23", transposed=True),
        layers=re.compile(r"(downsampler|nonbottleneck|upsampler)\d+|output23"),
        encoder=EncoderPart(
            encode=ERFNet.encode,
            channels=128,
            reduction=8,
            decoder_layers=(
                *("upsampler17", "nonbottleneck18", "nonbottleneck19"),
                *("upsampler20", "nonbottleneck21", "nonbottleneck22"),
                "output23",
            ),
        ),
        costs=PublishedCosts(2_100_000),
    ),
)

NETWORKS: Mapping[str, NetworkDefinition] = MappingProxyType({definition.name: definition for definition in _ALL})
"""The records by name."""


def definition_of(network: nn.Module) -> NetworkDefinition | None:
    """Return the record of a network's class, None for a module that the table does not know."""
    return NETWORKS.get(getattr(network, "name", ""))


def require_network(name: str) -> NetworkDefinition:
    """Return the record of a name that a user gave.

    Raises
    ------
    UserError
        When there is no such network.
    """
    if name not in NETWORKS:
        raise UserError(f"there is no network '{name}'; choose one of {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name]


def require_size(network: nn.Module, size: Size) -> None:
    """Refuse a size of pictures that a network of the table cannot take; what others take is not known.

    Raises
    ------
    UserError
        When a side is too small or does not divide.
    """
    if (definition := definition_of(network)) is not None:
        definition.require_size(size)
