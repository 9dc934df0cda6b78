"""Cost of a network, layer by layer: parameters, multiply-adds, activation memory.

Convention: one multiply-add is two FLOPs, and only convolutions (and linear layers) count. Biases, normalisation,
activations, pooling and additions do not: a compiler folds them into the convolution before them. A transposed
convolution counts every input pixel once per weight, not the zeros that a naive implementation inserts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size

_IDENTITY_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class Cost:
    """Cost of one layer, block or network for a batch of one.

    Attributes
    ----------
    name : str
        Dotted name of the module.
    kind : str
        Type of the module.
    output_shape : tuple of int
        Shape of its output, N x C x H x W; for a block, that of its last layer.
    parameters : int
        Number of trainable parameters.
    macs : int
        Multiply-adds of its convolutions.
    activation_bytes : int
        Size of the outputs of its layers in bytes, pooling indices included.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs, two per multiply-add."""
        return 2 * self.macs

    def to_json(self) -> dict[str, Any]:
        """Return the cost as plain data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "macs": self.macs,
            "flops": self.flops,
            "activation_bytes": self.activation_bytes,
        }


@dataclass(frozen=True)
class Summary:
    """The cost of a network at one input size, by layer (in order of execution), by block and in total."""

    network: str
    size: Size
    layers: tuple[Cost, ...]

    @property
    def blocks(self) -> tuple[Cost, ...]:
        """The layers gathered by the network's own children."""
        groups: dict[str, list[Cost]] = {}
        for layer in self.layers:
            groups.setdefault(layer.name.split(".")[0], []).append(layer)
        return tuple(_gather(name, layers[0].kind if len(layers) == 1 else "block", layers) for name, layers in groups.items())

    @property
    def total(self) -> Cost:
        """The sum of all layers."""
        return _gather("total", self.network, list(self.layers))

    @property
    def paper(self) -> dict[str, int] | None:
        """The paper's own parameters and FLOPs, when it gives them for this network; the latter only at its size."""
        known = NETWORKS.get(self.network)
        return None if known is None or known.costs is None else known.costs.at(self.size)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return {
            "network": self.network,
            "size": str(self.size),
            "convention": "2 FLOPs per multiply-add; convolutions only; transposed ones without inserted zeros",
            "total": self.total.to_json(),
            "paper": self.paper,
            "blocks": [cost.to_json() for cost in self.blocks],
            "layers": [cost.to_json() for cost in self.layers],
        }


def summarise(network: nn.Module, size: Size, in_channels: int = 3) -> Summary:
    """Return what a network costs for one picture in eval mode.

    Parameters
    ----------
    network : nn.Module
        The network; neither run nor changed: shapes are followed on meta tensors.
    size : Size
        Width and height of the picture.
    in_channels : int
        Number of channels of the picture.
    """
    layers: list[Cost] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            layers.append(
                Cost(
                    name=name,
                    kind=type(module).__name__,
                    output_shape=tuple(outputs[0].shape),
                    parameters=sum(p.numel() for p in module.parameters()),
                    macs=_macs(module, inputs[0], outputs[0]),
                    activation_bytes=sum(t.numel() * t.element_size() for t in outputs),
                )
            )

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in network.named_modules()
        if not any(True for _ in module.children()) and not isinstance(module, _IDENTITY_IN_EVAL)
    ]
    modes = {module: module.training for module in network.modules()}
    state = {key: value.detach().to("meta") for key, value in network.state_dict(keep_vars=True).items()}
    try:
        with torch.no_grad():
            picture = torch.empty(1, in_channels, size.height, size.width, device="meta")
            torch.func.functional_call(network.eval(), state, picture)
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in handles:
            handle.remove()
    return Summary(getattr(network, "name", type(network).__name__.lower()), size, tuple(layers))


def _macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the multiply-adds of one layer."""
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * module.out_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return y.numel() * module.in_features
    return 0


def _gather(name: str, kind: str, costs: list[Cost]) -> Cost:
    """Return the sum of several costs."""
    return Cost(
        name=name,
        kind=kind,
        output_shape=costs[-1].output_shape,
        parameters=sum(cost.parameters for cost in costs),
        macs=sum(cost.macs for cost in costs),
        activation_bytes=sum(cost.activation_bytes for cost in costs),
    )
