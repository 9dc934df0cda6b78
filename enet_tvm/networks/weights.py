"""Weights on disk: safetensors whose metadata say what they are of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, parse_json
from enet_tvm.networks.enet import ENet
from enet_tvm.networks.segnet import SegNet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.places import find_file

NETWORKS: dict[str, type[ENet] | type[SegNet]] = {"enet": ENet, "segnet": SegNet}
DEFAULT_WEIGHTS = "model/enet-camvid.safetensors"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself.

    Attributes
    ----------
    network : str
        Name of the network, a key of `NETWORKS`.
    classes : tuple of str
        Class names, in the order of the output channels.
    palette : tuple of (int, int, int)
        RGB colour of each class.
    mean, std : tuple of float
        Normalisation per RGB channel of pictures scaled to 0..1.
    notes : dict
        Anything else worth keeping: recipe, epoch, figures.
    variant : dict
        Options of the network that differ from the paper's, as `ENetVariant.to_json` gives them.
    """

    network: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    notes: dict[str, Any] = field(default_factory=dict)
    variant: dict[str, Any] = field(default_factory=dict)


def save_network(network: nn.Module, info: WeightsInfo, path: str | Path) -> None:
    """Write a network's parameters and buffers with what they are of, atomically."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_file(path) as temporary:
        # Written by Python, whose errors of a full disk `atomic_file` knows, and not by the library.
        temporary.write_bytes(safetensors.torch.save(state, metadata={"enet-tvm": json.dumps(asdict(info))}))


def read_info(weights: str | Path = DEFAULT_WEIGHTS) -> WeightsInfo:
    """Return what a weights file says of itself, without reading the weights.

    Raises
    ------
    UserError
        When the file is missing, is not safetensors, or was not written by this project.
    """
    path = find_file(weights)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); give weights made by 'enet-tvm train'"
        ) from error
    try:
        raw = parse_json(metadata["enet-tvm"])
        return WeightsInfo(
            network=raw["network"],
            classes=tuple(raw["classes"]),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in raw["palette"]),
            mean=tuple(raw["mean"]),
            std=tuple(raw["std"]),
            notes=raw.get("notes", {}),
            variant=dict(raw.get("variant", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not say which network and classes it is of; give weights made by 'enet-tvm train'"
        ) from error


def load_network(weights: str | Path = DEFAULT_WEIGHTS) -> nn.Module:
    """Return the network of a weights file, in eval mode.

    Parameters
    ----------
    weights : str or Path
        A safetensors file; a relative path is also looked for beside the installed package.

    Raises
    ------
    UserError
        When the file is missing or broken, or its tensors are not those of the network it names.
    """
    info = read_info(weights)
    path = find_file(weights)
    if info.network not in NETWORKS:
        raise UserError(f"{path} holds weights of '{info.network}'; this release knows {', '.join(sorted(NETWORKS))}")
    network = _build(info)
    state = safetensors.torch.load_file(path)
    expected = network.state_dict()
    if wrong := sorted(state.keys() ^ expected.keys()):
        raise UserError(
            f"{path} does not hold the tensors of {info.network} ('{wrong[0]}' is on one side only); "
            "give weights of that network"
        )
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise UserError(
                f"{path}: '{key}' has shape {tuple(state[key].shape)}, but {info.network} with {len(info.classes)} classes "
                f"needs {tuple(value.shape)}; give weights whose metadata match"
            )
    network.load_state_dict(state)
    return network.eval()


def _build(info: WeightsInfo) -> nn.Module:
    """Return the network that a weights file says it is of, untrained."""
    if info.network == "enet":
        return ENet(len(info.classes), ENetVariant.from_json(info.variant))
    return NETWORKS[info.network](len(info.classes))
