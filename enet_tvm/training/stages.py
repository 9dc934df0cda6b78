"""Stages of a recipe: the module that each trains, and the labels it trains on."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from enet_tvm.errors import UserError
from enet_tvm.networks import SegmentationNetwork
from enet_tvm.networks.definition import EncoderPart
from enet_tvm.networks.table import definition_of


class EncoderClassifier(nn.Module):
    """The encoder of a network under a 1x1 classifier, which the decoder replaces later (the paper, section 5.1).

    Parameters
    ----------
    network : SegmentationNetwork
        The network; it is shared, not copied, so that training this trains its encoder. Its decoder is frozen.
    encoder : EncoderPart
        The network's encoder part.
    """

    def __init__(self, network: SegmentationNetwork, encoder: EncoderPart) -> None:
        super().__init__()
        self.network = network
        self.encoder = encoder
        self.classifier = nn.Conv2d(encoder.channels, network.num_classes, 1)
        for name in encoder.decoder_layers:
            network.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N x num_classes x H/reduction x W/reduction."""
        return self.classifier(self.encoder.encode(self.network, x))


class SupervisedEncoder(nn.Module):
    """A network with a second classifier, on its encoder, that is trained too and left out when the network is used.

    Parameters
    ----------
    network : SegmentationNetwork
        The network; it is shared, not copied.
    encoder : EncoderPart
        The network's encoder part.
    """

    def __init__(self, network: SegmentationNetwork, encoder: EncoderPart) -> None:
        super().__init__()
        self.network = network
        self.encoder = encoder
        self.classifier = nn.Conv2d(encoder.channels, network.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the network's logits; in training also those of the encoder, N x num_classes x H/reduction x W/reduction."""
        if not self.training:
            return self.network(x)
        encoded: list[Tensor] = []
        decoder = self.network.get_submodule(self.encoder.decoder_layers[0])
        hook = decoder.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0]))
        try:
            logits = self.network(x)
        finally:
            hook.remove()
        return logits, self.classifier(encoded[0])


def trained_part(network: nn.Module, part: Literal["encoder", "network"], *, supervise_encoder: bool = False) -> nn.Module:
    """Return the module that a stage trains; parameters that it does not train are frozen.

    Parameters
    ----------
    network : nn.Module
        The whole network.
    part : {"encoder", "network"}
        Part that is trained.
    supervise_encoder : bool
        Whether the whole network is trained with a second classifier on its encoder.

    Raises
    ------
    UserError
        When the network's encoder cannot be trained alone, or not be given a classifier.
    """
    network.requires_grad_(True)
    if part == "network" and not supervise_encoder:
        return network
    known = definition_of(network)
    if not isinstance(network, SegmentationNetwork) or known is None or known.encoder is None:
        name = type(network).__name__
        remedy = "set the loss's encoder to 0" if part == "network" else 'give a recipe whose stages all have part = "network"'
        raise UserError(f"{name} cannot be trained encoder first, nor with a loss of its encoder; {remedy}")
    return (SupervisedEncoder if part == "network" else EncoderClassifier)(network, known.encoder)


def without_supervision(module: nn.Module) -> nn.Module:
    """Return the network that is used, of what a stage of the whole network trains."""
    return module.network if isinstance(module, SupervisedEncoder) else module


def reduce_labels(labels: Tensor, height: int, width: int) -> Tensor:
    """Return labels at a lower resolution: that of the pixel in the middle of each cell.

    Sampling keeps the classes' shares of the picture, and so the meaning of the class weights. What most pixels of a cell
    show would all but remove poles and signs, which are thinner than a cell.

    Parameters
    ----------
    labels : Tensor
        N x H x W labels.
    height, width : int
        Height and width of the result; they must divide H and W.
    """
    rows, columns = labels.shape[1] // height, labels.shape[2] // width
    return labels[:, rows // 2 :: rows, columns // 2 :: columns]
