"""Checkpoints: the state from which a training is resumed."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.networks.weights import check_numbers

_FORMAT = 1


@dataclass
class Checkpoint:
    """The state of a training at the end of an epoch.

    Chance needs no state: every epoch seeds its own from the recipe's seed and the epoch's number.

    Attributes
    ----------
    recipe : str
        The recipe as canonical JSON.
    classes : list of str
        Names of the classes trained on.
    epoch : int
        Number of epochs done.
    network, average, optimiser : dict
        State dictionaries; the learning rate follows from the epoch.
    updates : int
        Number of updates of the weight average.
    seconds : float
        Training time so far, in seconds.
    history : list of dict
        Rows of the log, one per epoch.
    network_name : str
        Name of the network, a key of `enet_tvm.networks.table.NETWORKS`.
    pictures : int or None
        Number of training pictures; None in checkpoints from before this was stored.
    histogram : list of int or None
        Number of labelled pixels of each class in them; None likewise.
    variant : dict
        Variant of the network, as `SegmentationNetwork.variant_json` gives it: training from a variant's weights keeps it.
    started_from : str or None
        Weights that the training started from, as `Start.name` gives them; None when it started from random ones.
    """

    recipe: str
    classes: list[str]
    epoch: int
    network: dict[str, Any]
    average: dict[str, Any]
    optimiser: dict[str, Any]
    updates: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    network_name: str = "enet"
    pictures: int | None = None
    histogram: list[int] | None = None
    variant: dict[str, Any] = field(default_factory=dict)
    started_from: str | None = None


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint atomically: an interruption leaves the previous one."""
    content = {"format": _FORMAT} | {key: getattr(checkpoint, key) for key in Checkpoint.__dataclass_fields__}
    serialised = io.BytesIO()
    torch.save(content, serialised)
    with atomic_file(path) as temporary:
        # Written by Python, whose errors of a full disk `atomic_file` knows, and not by PyTorch.
        temporary.write_bytes(serialised.getbuffer())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises
    ------
    UserError
        When the file is broken or of another format, or a weight is no number.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")
        checkpoint = Checkpoint(**content)
        for state in (checkpoint.network, checkpoint.average):
            check_numbers(state, str(path))
    except UserError:
        raise
    except Exception as error:  # PyTorch's unpickler raises whatever garbage leads it to; there is no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a usable checkpoint ({reason}); start over with --fresh") from error
    return checkpoint
