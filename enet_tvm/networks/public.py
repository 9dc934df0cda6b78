"""PyTorch-ENet (https://github.com/davidtvs/PyTorch-ENet), the most used public ENet: its names of tensors as ours.

That ENet differs from the paper's; tensors show most of it (`enet_tvm.networks.recognise`), and its code, as of its
pre-trained models of 2021, the rest: the initial block pools 3x3 with stride 2, batch norms have ``eps = 1e-5``, the decoder
drops out with 0.1, pictures are scaled to 0..1 and not normalised further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.recognise import network_of_tensors
from enet_tvm.networks.table import NETWORKS

NAMING = "pytorch-enet"
"""Name of PyTorch-ENet's naming of tensors."""

LAYERS = re.compile(r"initial_block|(downsample|upsample|regular|dilated|asymmetric)[1-5]_\d|transposed_conv")
"""Pattern of the names of the network's own children."""

PUBLIC_VARIANT: dict[str, Any] = {"epsilon": 1e-5, "initial_pool": 3, "decoder_dropout": 0.1, "activate_expansion": True}
"""Options of the variant that its tensors do not show."""

_LAYERS = {
    "initial": {"main_branch": "conv", "batch_norm": "norm", "out_activation": "act"},
    "bottleneck": {"ext_conv1": "project", "ext_conv2": "conv", "ext_conv3": "expand", "out_activation": "act"},
    "upsampling": {
        "main_conv1": "shortcut",
        "ext_conv1": "project",
        "ext_tconv1": "conv.0",
        "ext_tconv1_bnorm": "conv.1",
        "ext_tconv1_activation": "conv.2",
        "ext_conv2": "expand",
        "out_activation": "act",
    },
}
"""Names of layers in PyTorch-ENet to those here, for each kind of block."""


def convert_public_state(state: Mapping[str, Tensor], void: int | None = None) -> SegmentationNetwork:
    """Return PyTorch-ENet's network as one of ours, in eval mode: the same logits, tensor by tensor.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of a PyTorch-ENet. Names and shapes decide the variant.
    void : int, optional
        Number of an output channel to leave out, such as the one for pixels without a label.

    Raises
    ------
    UserError
        When the tensors are not those of a PyTorch-ENet.
    """
    return network_of_tensors(NETWORKS["enet"], renamed_public_state(state), PUBLIC_VARIANT, "the state dict", void)


def renamed_public_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of PyTorch-ENet under our names.

    Raises
    ------
    UserError
        When a tensor has a name that PyTorch-ENet does not give.
    """
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    """Return a tensor's name here."""
    there, _, rest = key.partition(".")
    if there == "transposed_conv":
        return f"fullconv.{rest}"
    layer, _, tensor = rest.partition(".")
    if there == "initial_block" and layer in _LAYERS["initial"]:
        return f"initial.{_LAYERS['initial'][layer]}.{tensor}"
    if match := re.fullmatch(r"(downsample|upsample|regular|dilated|asymmetric)([1-5])_(\d)", there):
        layers = _LAYERS["upsampling" if match[1] == "upsample" else "bottleneck"]
        stage, number = int(match[2]), int(match[3])
        if layer in layers:
            # Their third stage counts from 0, like the others, but has no block that changes the resolution.
            return f"bottleneck{stage}_{number + (stage == 3)}.{layers[layer]}.{tensor}"
    raise UserError(f"it is not a state dict of PyTorch-ENet, which has no tensor '{key}'; give another file")
