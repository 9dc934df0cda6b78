"""A network with its batch norms folded away, in PyTorch: the form in which PyTorch itself is fastest."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from enet_tvm.networks.concatenated import ConvolutionBesidePooling


class _FoldedConcatenation(nn.Module):
    """A `ConvolutionBesidePooling` whose norm is in the convolution and, for the pooled channels, a scale and shift."""

    def __init__(self, block: ConvolutionBesidePooling) -> None:
        super().__init__()
        norm, filters = block.norm, block.conv.out_channels
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a block without statistics cannot be folded")
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        self.conv = copy.deepcopy(block.conv)
        with torch.no_grad():
            self.conv.weight.copy_(block.conv.weight * scale[:filters, None, None, None])
            bias = torch.zeros_like(shift[:filters]) if block.conv.bias is None else block.conv.bias
            self.conv.bias = nn.Parameter(bias * scale[:filters] + shift[:filters])
        self.pool, self.act = block.pool, block.act
        self.register_buffer("scale", scale[filters:, None, None].detach().clone())
        self.register_buffer("shift", shift[filters:, None, None].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(torch.cat([self.conv(x), self.pool(x) * self.scale + self.shift], dim=1))


def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode without batch norms that follow a convolution.

    The outputs differ by rounding alone.
    """
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, ConvolutionBesidePooling):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _FoldedConcatenation(module))
        elif isinstance(module, nn.Sequential):
            _fold_sequential(module)
    return network


def _fold_sequential(sequence: nn.Sequential) -> None:
    for place in range(len(sequence) - 1):
        first, second = sequence[place], sequence[place + 1]
        if isinstance(second, nn.BatchNorm2d) and isinstance(first, nn.Conv2d | nn.ConvTranspose2d):
            sequence[place] = fuse_conv_bn_eval(first, second, transpose=isinstance(first, nn.ConvTranspose2d))
            sequence[place + 1] = nn.Identity()
