"""Learned slopes of a network's PReLUs, in order of depth (the paper's figure 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.networks.table import definition_of


@dataclass(frozen=True)
class Slopes:
    """The slopes of one activation for negative inputs.

    Attributes
    ----------
    layer : str
        Dotted name of the activation.
    block : str
        Name of the network's own child that it belongs to.
    kind : {"prelu", "relu"}
        Kind of the activation; a ReLU counts as a PReLU whose slope is zero.
    part : {"encoder", "decoder"}
        Part of the network that it is in; all is encoder in a network whose record names no decoder.
    mean, minimum, maximum : float
        Mean, smallest and largest of its slopes.
    count : int
        Number of slopes; 0 for a ReLU.
    """

    layer: str
    block: str
    kind: Literal["prelu", "relu"]
    part: Literal["encoder", "decoder"]
    mean: float
    minimum: float
    maximum: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        return asdict(self)


def prelu_slopes(network: nn.Module) -> list[Slopes]:
    """Return the slopes of every PReLU and ReLU, in order of depth.

    Raises
    ------
    UserError
        When the network has no PReLU, or one with a slope that is not a number.
    """
    known = definition_of(network)
    decoder = set(known.encoder.decoder_layers if known is not None and known.encoder is not None else ())
    found = []
    for name, module in network.named_modules():
        if not isinstance(module, nn.PReLU | nn.ReLU):
            continue
        kind: Literal["prelu", "relu"] = "prelu" if isinstance(module, nn.PReLU) else "relu"
        values = module.weight.detach().double().cpu() if isinstance(module, nn.PReLU) else torch.zeros(1)
        if not values.isfinite().all():
            raise UserError(f"'{name}' has slopes that are not numbers; give weights of a training that did not diverge")
        block = name.split(".")[0]
        part: Literal["encoder", "decoder"] = "decoder" if block in decoder else "encoder"
        count = values.numel() if kind == "prelu" else 0
        found.append(Slopes(name, block, kind, part, float(values.mean()), float(values.min()), float(values.max()), count))
    if not any(slopes.kind == "prelu" for slopes in found):
        raise UserError("this network has no PReLU, so there are no slopes to draw; give weights of ENet")
    return found
