"""Which network a set of tensors is of: their names and shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks.enet import ENet
from enet_tvm.networks.segnet import SegNet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.networks.weights import load_tensors

HEADS = {"enet": ("fullconv", 1), "segnet": ("classifier", 0)}
"""The last layer of each network, and along which axis of its weight the outputs lie."""


def count_outputs(network: str, tensors: Mapping[str, Tensor], source: str) -> int:
    """Return how many outputs the network of these tensors has.

    Raises
    ------
    UserError
        When it has no last layer.
    """
    head, axis = HEADS[network]
    return _convolution(tensors, f"{head}.weight", source).shape[axis]


def enet_of_tensors(tensors: Mapping[str, Tensor], told: Mapping[str, Any], source: str, void: int | None = None) -> ENet:
    """Return the ENet of tensors under our names, in eval mode.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        By the names of `enet_tvm.networks.ENet`; in any floating-point precision.
    told : mapping
        Options of `ENetVariant` that tensors do not show; the paper's by default.
    source : str
        What the tensors are, for sentences.
    void : int, optional
        An output channel to leave out.

    Raises
    ------
    UserError
        When the tensors are not those of an ENet, or not numbers.
    """
    variant = enet_variant(tensors, told, source)
    network = ENet(count_outputs("enet", tensors, source) - (void is not None), variant)
    load_tensors(network, _without_output(tensors, void), source)
    return network.eval()


def segnet_of_tensors(tensors: Mapping[str, Tensor], source: str) -> SegNet:
    """Return the SegNet of tensors under our names, in eval mode.

    Raises
    ------
    UserError
        When the tensors are not those of a SegNet, or not numbers.
    """
    network = SegNet(count_outputs("segnet", tensors, source))
    load_tensors(network, tensors, source)
    return network.eval()


def enet_variant(tensors: Mapping[str, Tensor], told: Mapping[str, Any], source: str) -> ENetVariant:
    """Return the variant of ENet that tensors show by their names and shapes, and `told` of what they do not show.

    Raises
    ------
    UserError
        When a convolution that shows it is missing, or an option is unknown or does not fit.
    """

    def shape(key: str) -> torch.Size:
        return _convolution(tensors, f"{key}.weight", source).shape

    slopes = [tensors[key] for key in ("initial.act.weight", "bottleneck5_1.act.weight") if key in tensors]
    encoder = "prelu" if "initial.act.weight" in tensors else "relu"
    halves = shape("bottleneck2_3.conv.0")
    shown: dict[str, Any] = {
        "biases": "initial.conv.bias" in tensors,
        "inner_width": "input" if shape("bottleneck1_0.project.0")[0] == 4 else "output",
        "asymmetric_first": "vertical" if halves[2] > halves[3] else "horizontal",
        "normalise_between": "bottleneck2_3.conv.4.weight" in tensors,
        "encoder_activation": encoder,
        "decoder_activation": "prelu" if "bottleneck5_1.act.weight" in tensors else "relu",
        "upsampling_kernel": shape("bottleneck4_0.conv.0")[2],
        "head_kernel": shape("fullconv")[2],
    }
    # An activation without slopes leaves no trace.
    if slopes:
        shown["slopes"] = "layer" if slopes[0].numel() == 1 else "channel"
        shown["activate_expansion"] = any(f"bottleneck{block}.expand.2.weight" in tensors for block in ("1_1", "4_1"))
    if wrong := sorted(key for key in told.keys() & shown.keys() if told[key] != shown[key]):
        key = wrong[0]
        raise UserError(f"{source}: its tensors show {key} = {shown[key]}, and not {told[key]}; leave that option out")
    return ENetVariant.from_json({**told, **shown})


def _convolution(tensors: Mapping[str, Tensor], key: str, source: str) -> Tensor:
    if key not in tensors or tensors[key].dim() != 4:
        raise UserError(f"{source} has no convolution '{key}'; give another file")
    return tensors[key]


def _without_output(tensors: Mapping[str, Tensor], void: int | None) -> dict[str, Tensor]:
    if void is None:
        return dict(tensors)
    head, axis = HEADS["enet"]
    weight = tensors[f"{head}.weight"]
    kept = torch.tensor([channel for channel in range(weight.shape[axis]) if channel != void])
    left = {f"{head}.weight": weight.index_select(axis, kept)}
    if f"{head}.bias" in tensors:
        left[f"{head}.bias"] = tensors[f"{head}.bias"].index_select(0, kept)
    return {**tensors, **left}
