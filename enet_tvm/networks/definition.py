"""Definitions of networks: one record each of what the project knows of a network beside its layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.tensors import convolution_weight
from enet_tvm.size import MULTIPLE, Size


class VariantSchema(Protocol):
    """The options of a network that comes in variants; `enet_tvm.networks.ENetVariant` is one.

    An instance is one variant, and the second argument of the network's `NetworkDefinition.build`.
    """

    def from_json(self, content: dict[str, Any], /) -> Any:
        """Return the variant that plain data describe: what differs from the paper's; raise UserError if they do not fit."""

    def from_tensors(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any], source: str, /) -> Any:
        """Return the variant that tensors show, and `told` of what they do not; raise UserError, begun by `source`."""


@dataclass(frozen=True)
class EncoderPart:
    """The part of a network that can be trained before the rest, under a classifier of its own.

    Attributes
    ----------
    encode : callable
        Maps the network and N x 3 x H x W pictures to the encoder's output, N x channels x H/reduction x W/reduction.
    channels, reduction : int
        Channels of the encoder's output, and the factor by which its height and width are smaller than the picture's.
    decoder_layers : tuple of str
        The network's own children after the encoder, in order; the first of them takes the encoder's output.
    """

    encode: Callable[[Any, Tensor], Tensor]
    channels: int
    reduction: int
    decoder_layers: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """The layer of a network that makes its logits, a convolution.

    Attributes
    ----------
    layer : str
        Name of the layer, a child of the network.
    transposed : bool
        Whether it is a transposed convolution, whose weight has its outputs along the second axis.
    """

    layer: str
    transposed: bool = False

    @property
    def axis(self) -> int:
        """The axis of its weight along which the outputs lie."""
        return int(self.transposed)

    def outputs(self, tensors: Mapping[str, Tensor], source: str) -> int:
        """Return how many outputs the network of these tensors has.

        Raises
        ------
        UserError
            When this layer is not among them; `source` begins the sentence.
        """
        return convolution_weight(tensors, self.layer, source).shape[self.axis]

    def without_output(self, tensors: Mapping[str, Tensor], output: int) -> dict[str, Tensor]:
        """Return a network's tensors without one of its outputs."""
        weight, bias = tensors[f"{self.layer}.weight"], tensors.get(f"{self.layer}.bias")
        kept = torch.tensor([channel for channel in range(weight.shape[self.axis]) if channel != output])
        left = {f"{self.layer}.weight": weight.index_select(self.axis, kept)}
        if bias is not None:
            left[f"{self.layer}.bias"] = bias.index_select(0, kept)
        return {**tensors, **left}


@dataclass(frozen=True)
class PublishedCosts:
    """Costs of a network, as a paper gives them.

    Attributes
    ----------
    parameters : int
        Number of parameters, as the paper counts them.
    flops : int or None
        FLOPs for one picture of `size`, two for each multiply-add; None where the paper gives none.
    size : Size or None
        Size of the picture that `flops` holds for; None where `flops` is.
    """

    parameters: int
    flops: int | None = None
    size: Size | None = None

    def at(self, size: Size) -> dict[str, int]:
        """Return the figures that hold for pictures of a size."""
        return {"parameters": self.parameters} | ({"flops": self.flops} if self.flops and size == self.size else {})


@dataclass(frozen=True)
class NetworkDefinition:
    """All that the project knows of a network.

    Attributes
    ----------
    name : str
        Name in commands, weights files and manifests.
    title : str
        Name in sentences.
    paper : str
        Reference of the paper: authors, year and where it is published.
    build : callable
        Maps the number of classes, and for a network with variants one of these, to the untrained network.
    head : Head
        The layer that makes its logits.
    layers : re.Pattern
        Matches the names of the network's own children, whole, and no other network's: checkpoints are recognised by it.
    encoder : EncoderPart or None
        Encoder that can be trained before the rest; None if there is none.
    variants : VariantSchema or None
        Options in which its implementations differ; None if it has no variants.
    divisor : int
        Number that divides both sides of the picture; a multiple of `enet_tvm.size.MULTIPLE`, which holds for every size on the
        command line.
    smallest_side : int
        Smallest height or width of the picture, in pixels.
    costs : PublishedCosts or None
        Costs that its paper, or a paper that compares with it, gives; None if neither gives any.
    """

    name: str
    title: str
    paper: str
    build: Callable[..., SegmentationNetwork]
    head: Head
    layers: re.Pattern[str]
    encoder: EncoderPart | None = None
    variants: VariantSchema | None = None
    divisor: int = MULTIPLE
    smallest_side: int = MULTIPLE
    costs: PublishedCosts | None = None

    def new(self, classes: int, variant: Mapping[str, Any] | None = None) -> SegmentationNetwork:
        """Return the untrained network.

        Parameters
        ----------
        classes : int
            Number of output channels.
        variant : mapping, optional
            Options that differ from the paper's, as `SegmentationNetwork.variant_json` gives them.

        Raises
        ------
        UserError
            When the variant does not fit, or there are none.
        """
        if self.variants is None:
            self.require_no_options(variant or {}, self.title)
            return self.build(classes)
        return self.build(classes, self.variants.from_json(dict(variant or {})))

    def require_no_options(self, variant: Mapping[str, Any], source: str) -> None:
        """Refuse options of a variant where the network has none; `source` begins the sentence."""
        if variant and self.variants is None:
            raise UserError(f"{source} is a {self.title}, which has no variants; leave those options out")

    def require_size(self, size: Size) -> None:
        """Refuse a size of pictures that the network cannot take.

        Raises
        ------
        UserError
            When a side is too small or does not divide.
        """
        if min(size) < self.smallest_side:
            side = self.smallest_side
            raise UserError(f"{size} is too small for {self.title}; take {side}x{side} or more")
        if size.width % self.divisor or size.height % self.divisor:
            near = Size(*(max(self.divisor, round(side / self.divisor) * self.divisor) for side in size))
            raise UserError(f"{self.title} takes sides divisible by {self.divisor}, not {size}; try {near}")
