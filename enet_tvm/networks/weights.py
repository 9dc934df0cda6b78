"""Weights files: safetensors whose metadata describe the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

import safetensors
import safetensors.torch
import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, parse_json
from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.table import NETWORKS
from enet_tvm.normalisation import Channel, Mean, Std
from enet_tvm.places import find_file, shipped

DEFAULT_WEIGHTS = shipped("model/enet-camvid.safetensors")

FIGURES = ("val", "held_out")
"""Notes that hold what was measured: on pictures that judge the weights, and of other weights of the recipe."""

_METADATA = "enet-tvm"
_COUNTER = "num_batches_tracked"
"""Name of the buffer in which batch norms count their updates: no network computes with it, and old PyTorch had none."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class WeightsInfo:
    """Description that a weights file holds of its network; pydantic's ValidationError, a ValueError, names what does not fit.

    Attributes
    ----------
    network : str
        Name of the network, a key of `enet_tvm.networks.table.NETWORKS`; any other for a network of one's own.
    classes : tuple of str
        Class names, in the order of the output channels.
    palette : tuple of (int, int, int)
        RGB colour of each class, 0..255.
    mean, std : tuple of float
        Normalisation per RGB channel of pictures scaled to 0..1; finite, and no std is zero or less.
    notes : dict
        Further facts about the weights: recipe, epoch, and the figures of `FIGURES`.
    variant : dict
        Options of the network that differ from the paper's, as `SegmentationNetwork.variant_json` gives them.
    """

    network: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    palette: tuple[tuple[Channel, Channel, Channel], ...]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]
    notes: dict[str, Any] = field(default_factory=dict)
    variant: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(self.classes) != len(self.palette):
            raise ValueError(f"{len(self.classes)} classes and {len(self.palette)} colours differ")
        return self

    def without_figures(self) -> Self:
        """Return the description of weights that were made of these: what was measured of these is not of them."""
        return replace(self, notes={key: value for key, value in self.notes.items() if key not in FIGURES})


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class NetworkInMemory:
    """A network that needs no file: what `enet_tvm.compiler.compile.compile_artifact` takes in place of weights.

    Attributes
    ----------
    network : torch.nn.Module
        Any module that takes N x 3 x H x W float32 pictures, normalised, and returns N x C x H x W float32 logits, if the
        frontend can import its operators; it is brought into eval mode.
    info : WeightsInfo
        Name, classes, colours and normalisation of the network.
    """

    network: nn.Module
    info: WeightsInfo

    @property
    def sha256(self) -> str:
        """SHA-256 that takes the place of a weights file's hash; see `state_sha256`."""
        return state_sha256(self.network)


def state_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, in hexadecimal.

    It is of every tensor in the order of the names: the name, dtype and shape as one line of text, then the values as they lie
    in memory, row by row. The same values give the same hash in every process and on every device; the layers that compute with
    them are no part of it.
    """
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{key} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def save_network(network: nn.Module, info: WeightsInfo, path: str | Path) -> None:
    """Write a network's parameters and buffers with their description, atomically.

    Parameters
    ----------
    network : torch.nn.Module
        The network, trained anywhere, on any device.
    info : WeightsInfo
        Description of the network; for an ENet other than the paper's, ``variant=network.variant_json()`` belongs to it.
    path : str or Path
        The safetensors file, which every command takes as ``--weights``.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_file(path) as temporary:
        # Written by Python, whose errors of a full disk `atomic_file` knows, and not by the library.
        temporary.write_bytes(safetensors.torch.save(state, metadata={_METADATA: json.dumps(asdict(info))}))


def read_info(weights: str | Path = DEFAULT_WEIGHTS) -> WeightsInfo:
    """Return what a weights file says of itself, without reading the weights.

    Raises
    ------
    UserError
        When the file is missing, is not safetensors, or was not written by this project, with the command that imports it
        if it is a network all the same; when its mean or std is nothing to normalise by.
    """
    path = find_file(weights)
    try:
        info = read_own_info(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        _refuse_foreign(path)
        raise UserError(f"{path} is not a readable safetensors file ({error}); {_MADE_HERE}") from error
    if info is None:
        _refuse_foreign(path)
        raise UserError(f"{path} {_SAYS_NOT}; {_MADE_HERE}")
    return info


def read_own_info(path: str | Path) -> WeightsInfo | None:
    """Return what a safetensors file says of itself, None if it is not one of this project.

    Raises
    ------
    UserError
        When it says what does not fit.
    safetensors.SafetensorError, OSError, ValueError
        When the file is not readable safetensors.
    """
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    if _METADATA not in metadata:
        return None
    try:
        raw = parse_json(metadata[_METADATA])
    except ValueError as error:
        raise UserError(f"{path} {_SAYS_NOT} ({error}); {_MADE_HERE}") from error
    return parse_info(raw, path, _MADE_HERE)


_MADE_HERE = "give weights made by 'enet-tvm train'"
_SAYS_NOT = "does not say which network and classes it is of"


def parse_info(raw: Any, path: str | Path, remedy: str) -> WeightsInfo:
    """Return what a file says of itself.

    Parameters
    ----------
    raw : mapping
        The attributes of `WeightsInfo`, as JSON has them; others are left out.
    path : str or Path
        The file, for the sentence.
    remedy : str
        Advice on what to do about a file that does not say it.

    Raises
    ------
    UserError
        When something is missing or does not fit.
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"{path} {_SAYS_NOT}; {remedy}")
    known = WeightsInfo.__dataclass_fields__.keys()
    try:
        return WeightsInfo(**{key: value for key, value in raw.items() if key in known and value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][:1] in (("mean",), ("std",)):
            where = " ".join(str(step) for step in first["loc"])
            raise UserError(
                f"{path} cannot normalise pictures: {where} is {first['input']!r}, and {first['msg'].lower()}; "
                "make it again with a finite mean and a std above zero"
            ) from error
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(f"{path} {_SAYS_NOT} ({where}: {first['msg']}); {remedy}") from error


def _refuse_foreign(path: Path) -> None:
    """Refuse a checkpoint that others wrote with the command that imports it; return if it is none."""
    # The import stands on this module.
    from enet_tvm.networks.checkpoint_file import looks_like_checkpoint
    from enet_tvm.networks.importing import how_to_import

    if looks_like_checkpoint(path):
        raise UserError(how_to_import(path))


def load_network(weights: str | Path = DEFAULT_WEIGHTS) -> SegmentationNetwork:
    """Return the network of a weights file, in eval mode.

    Parameters
    ----------
    weights : str or Path
        A safetensors file; a relative path is also looked for beside the installed package.

    Raises
    ------
    UserError
        When the file is missing or broken, its tensors are not those of the network it names, or hold what is no number.
    """
    info = read_info(weights)
    path = find_file(weights)
    if info.network not in NETWORKS:
        raise UserError(f"{path} holds weights of '{info.network}'; this release knows {', '.join(sorted(NETWORKS))}")
    network = NETWORKS[info.network].new(len(info.classes), info.variant)
    load_tensors(network, safetensors.torch.load_file(path), str(path))
    return network.eval()


def load_tensors(network: SegmentationNetwork, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a network with tensors, all of it and in its own precision.

    Counters of batches are taken where they are; they may be missing.

    Raises
    ------
    UserError
        When tensors are missing, too many, of another shape, or hold what is no number; `source` begins the sentence.
    """
    expected = network.state_dict()
    missing = sorted(key for key in expected.keys() - tensors.keys() if not key.endswith(_COUNTER))
    surplus = sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        parts = [f"it lacks {_some(missing)}"] if missing else []
        parts += [f"it has {_some(surplus)} besides"] if surplus else []
        raise UserError(
            f"{source} does not hold the tensors of {network.name}: {' and '.join(parts)}; give weights of that network"
        )
    for key, value in tensors.items():
        if key.endswith(_COUNTER):
            continue
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            raise UserError(
                f"{source}: '{key}' is {value.dtype} and {value.layout}, not a plain tensor of floating-point numbers; "
                "save the weights before they are quantised or made sparse"
            )
        if value.shape != expected[key].shape:
            raise UserError(
                f"{source}: '{key}' has shape {tuple(value.shape)}, but {network.name} with {network.num_classes} classes "
                f"needs {tuple(expected[key].shape)}; give weights whose metadata match"
            )
    counters = {key: value for key, value in expected.items() if key.endswith(_COUNTER)}
    counted = {key: tensors[key] for key in counters if key in tensors and not tensors[key].is_floating_point()}
    counted = {key: value.reshape(()) for key, value in counted.items() if value.numel() == 1}
    network.load_state_dict({**tensors, **counters, **counted})
    check_numbers(network.state_dict(), source)


def check_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors with NaN or infinity, and variances below zero, whose square root is NaN.

    Raises
    ------
    UserError
        When there is one; the sentence begins with `source` and names the first.
    """
    for key, value in tensors.items():
        if not value.is_floating_point():
            continue
        if wrong := int((~value.isfinite()).sum()):
            what = f"{wrong:,} of {value.numel():,} values are" if value.numel() > 1 else "its value is"
            raise UserError(f"{source}: {what} NaN or infinite in '{key}'; give weights of a training that did not diverge")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise UserError(f"{source}: '{key}' has a variance below zero; give weights of a training that did not diverge")


def _some(names: Collection[str], most: int = 3) -> str:
    """Return the first few names and how many there are more."""
    shown = ", ".join(f"'{name}'" for name in list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
