"""Weights of PyTorch-ENet (https://github.com/davidtvs/PyTorch-ENet), the most used public ENet, brought into this one.

That ENet differs from the paper's; tensors show most of it (their names and shapes select the variant), and its code, as of
its pre-trained models of 2021, the rest: the initial block pools 3x3 with stride 2, batch norms have ``eps = 1e-5``, the
decoder drops out with 0.1, pictures are scaled to 0..1 and not normalised further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.networks.enet import ENet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.networks.weights import WeightsInfo

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
"""Names of layers in each kind of block there, and here."""

_NOT_ONE = "it is not a state dict of PyTorch-ENet"


def read_public_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: a state dict, or a dict with one under ``state_dict``.

    Nothing but tensors and plain values is unpickled.

    Raises
    ------
    UserError
        When the file is missing, or not such a checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a restricted unpickler raises at another kind of file has no common base
        raise UserError(
            f"{path} is not a checkpoint of tensors alone; save the network's state_dict() with torch.save"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict; save the network's state_dict() with torch.save")
    # Networks trained on several GPUs have one more level.
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def convert_public_state(state: Mapping[str, Tensor], void: int | None = None) -> ENet:
    """Return PyTorch-ENet's network as one of ours, in eval mode: the same logits, tensor by tensor.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its state dict. Names and shapes decide the variant.
    void : int, optional
        An output channel to leave out, as one for pixels without a label.

    Raises
    ------
    UserError
        When the tensors are not those of a PyTorch-ENet.
    """
    variant = _variant(state)
    renamed = {_renamed(key): value for key, value in state.items()}
    head = _tensor(state, "transposed_conv.weight")
    if void is not None:
        kept = [channel for channel in range(head.shape[1]) if channel != void]
        renamed["fullconv.weight"] = head[:, kept]
    network = ENet(renamed["fullconv.weight"].shape[1], variant)
    expected = network.state_dict()
    for key in expected:
        if key.endswith("num_batches_tracked"):  # older versions of PyTorch did not count
            renamed.setdefault(key, expected[key])
    if wrong := sorted(renamed.keys() ^ expected.keys()):
        raise UserError(f"{_NOT_ONE}: '{wrong[0]}', by its name here, is on one side only; give another file")
    for key, value in expected.items():
        if renamed[key].shape != value.shape:
            found, wanted = tuple(renamed[key].shape), tuple(value.shape)
            raise UserError(f"{_NOT_ONE}: '{key}', by its name here, has shape {found} and not {wanted}; give another file")
    network.load_state_dict(renamed)
    return network.eval()


def import_public(path: str | Path, class_set: ClassSet) -> tuple[ENet, WeightsInfo, str | None]:
    """Return the network of a checkpoint of PyTorch-ENet, what it is of, and what became of a channel too many.

    Its networks have one output more than the data set has classes, for pixels without a label: the first one for
    Cityscapes, the last one else. It is left out.

    Parameters
    ----------
    path : str or Path
        The checkpoint.
    class_set : ClassSet
        The classes that the network was trained on, in this order.

    Raises
    ------
    UserError
        When the file is no such checkpoint, or of other classes.
    """
    state = read_public_state(path)
    outputs = _tensor(state, "transposed_conv.weight").shape[1]
    if outputs - len(class_set) not in (0, 1):
        raise UserError(
            f"{path} has {outputs} outputs and {class_set.name} has {len(class_set)} classes, or one more for void; "
            "give the class set that it was trained on with --classes"
        )
    void = None if outputs == len(class_set) else (0 if class_set.name == "cityscapes" else outputs - 1)
    network = convert_public_state(state, void)
    info = WeightsInfo(
        network=network.name,
        classes=class_set.names,
        palette=class_set.palette,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        notes={"imported_from": f"{Path(path).name}, a checkpoint of PyTorch-ENet"},
        variant=network.variant.to_json(),
    )
    return network, info, None if void is None else f"output {void}, for pixels without a label, was left out"


def _variant(state: Mapping[str, Tensor]) -> ENetVariant:
    """Return the variant that a state dict's names and shapes tell."""
    slope = state.get("initial_block.out_activation.weight")
    halves = _tensor(state, "asymmetric2_3.ext_conv2.0.weight")
    inner = _tensor(state, "downsample1_0.ext_conv1.0.weight").shape[0]
    encoder_relu = slope is None
    return ENetVariant.from_json(
        {
            "epsilon": 1e-5,
            "biases": "initial_block.main_branch.bias" in state,
            "initial_pool": 3,
            "inner_width": "input" if inner == 4 else "output",
            "asymmetric_first": "vertical" if halves.shape[2] > halves.shape[3] else "horizontal",
            "normalise_between": "asymmetric2_3.ext_conv2.4.weight" in state,
            "activate_expansion": encoder_relu or "regular1_1.ext_conv3.2.weight" in state,
            "slopes": "layer" if slope is not None and slope.numel() == 1 else "channel",
            "encoder_activation": "relu" if encoder_relu else "prelu",
            "decoder_activation": "prelu" if "regular5_1.out_activation.weight" in state else "relu",
            "upsampling_kernel": _tensor(state, "upsample4_0.ext_tconv1.weight").shape[2],
            "head_kernel": _tensor(state, "transposed_conv.weight").shape[2],
            "decoder_dropout": 0.1,
        }
    )


def _tensor(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state or state[key].dim() != 4:
        raise UserError(f"{_NOT_ONE}: there is no convolution '{key}'; give another file")
    return state[key]


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
    raise UserError(f"{_NOT_ONE}: it has no tensor '{key}'; give another file")
