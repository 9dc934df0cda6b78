"""What a stage of a recipe trains, and the labels it trains on."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet


class EncoderClassifier(nn.Module):
    """The encoder of a network under a 1x1 classifier, which the decoder replaces later (the paper, section 5.1).

    Parameters
    ----------
    network : ENet
        The network; it is shared, not copied, so that training this trains its encoder. Its decoder is frozen.
    """

    def __init__(self, network: ENet) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Conv2d(network.encoder_channels, network.num_classes, 1)
        for name in network.decoder_layers:
            network.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N x num_classes x H/8 x W/8."""
        return self.classifier(self.network.encode(x)[0])


def trained_part(network: nn.Module, part: Literal["encoder", "network"]) -> nn.Module:
    """Return the module that a stage trains; parameters that it does not train are frozen.

    Raises
    ------
    UserError
        When the network's encoder cannot be trained alone.
    """
    network.requires_grad_(True)
    if part == "network":
        return network
    if not isinstance(network, ENet):
        name = type(network).__name__
        raise UserError(f'{name} cannot be trained encoder first; give a recipe whose stages all have part = "network"')
    return EncoderClassifier(network)


def reduce_labels(labels: Tensor, height: int, width: int) -> Tensor:
    """Return labels at a lower resolution: that of the pixel in the middle of each cell.

    Sampling keeps the classes' shares of the picture, and so the meaning of the class weights. What most pixels of a cell
    show would all but remove poles and signs, which are thinner than a cell.

    Parameters
    ----------
    labels : Tensor
        N x H x W.
    height, width : int
        Of the result; they must divide H and W.
    """
    rows, columns = labels.shape[1] // height, labels.shape[2] // width
    return labels[:, rows // 2 :: rows, columns // 2 :: columns]
