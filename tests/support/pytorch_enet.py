"""PyTorch-ENet (github.com/davidtvs/PyTorch-ENet), written from its description: shapes of its tensors, its forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

STAGE_2 = ["regular2_1", "dilated2_2", "asymmetric2_3", "dilated2_4", "regular2_5", "dilated2_6", "asymmetric2_7", "dilated2_8"]
STAGE_3 = ["regular3_0", "dilated3_1", "asymmetric3_2", "dilated3_3", "regular3_4", "dilated3_5", "asymmetric3_6", "dilated3_7"]
DILATIONS = [1, 2, 1, 4, 1, 8, 1, 16]


def shapes(classes: int, encoder_slope: bool = True, decoder_slope: bool = False) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every tensor that matters."""

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.{key}", (width,)) for key in ("weight", "bias", "running_mean", "running_var"))
        yield f"{name}.num_batches_tracked", ()

    def unit(name: str, place: int, conv: tuple[int, ...], slope: bool | None) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Convolution, norm and activation of a sequence from `place` on; no activation at all for None."""
        yield f"{name}.{place}.weight", conv
        yield from norm(f"{name}.{place + 1}", conv[0])
        if slope:
            yield f"{name}.{place + 2}.weight", (1,)

    def bottleneck(name: str, inputs: int, inner: int, outputs: int, first: int, slope: bool):
        yield from unit(f"{name}.ext_conv1", 0, (inner, inputs, first, first), slope)
        if name.startswith("asymmetric"):
            yield from unit(f"{name}.ext_conv2", 0, (inner, inner, 5, 1), slope)
            yield from unit(f"{name}.ext_conv2", 3, (inner, inner, 1, 5), slope)
        else:
            yield from unit(f"{name}.ext_conv2", 0, (inner, inner, 3, 3), slope)
        yield from unit(f"{name}.ext_conv3", 0, (outputs, inner, 1, 1), slope)
        if slope:
            yield f"{name}.out_activation.weight", (1,)

    def upsampling(name: str, inputs: int, outputs: int, slope: bool):
        inner = inputs // 4
        yield from unit(f"{name}.main_conv1", 0, (outputs, inputs, 1, 1), None)
        yield from unit(f"{name}.ext_conv1", 0, (inner, inputs, 1, 1), slope)
        yield f"{name}.ext_tconv1.weight", (inner, inner, 2, 2)
        yield from norm(f"{name}.ext_tconv1_bnorm", inner)
        yield from unit(f"{name}.ext_conv2", 0, (outputs, inner, 1, 1), None)
        if slope:
            yield f"{name}.ext_tconv1_activation.weight", (1,)
            yield f"{name}.out_activation.weight", (1,)

    yield "initial_block.main_branch.weight", (13, 3, 3, 3)
    yield from norm("initial_block.batch_norm", 16)
    if encoder_slope:
        yield "initial_block.out_activation.weight", (1,)
    yield from bottleneck("downsample1_0", 16, 4, 64, 2, encoder_slope)
    for i in range(1, 5):
        yield from bottleneck(f"regular1_{i}", 64, 16, 64, 1, encoder_slope)
    yield from bottleneck("downsample2_0", 64, 16, 128, 2, encoder_slope)
    for name in STAGE_2 + STAGE_3:
        yield from bottleneck(name, 128, 32, 128, 1, encoder_slope)
    yield from upsampling("upsample4_0", 128, 64, decoder_slope)
    for i in (1, 2):
        yield from bottleneck(f"regular4_{i}", 64, 16, 64, 1, decoder_slope)
    yield from upsampling("upsample5_0", 64, 16, decoder_slope)
    yield from bottleneck("regular5_1", 16, 4, 16, 1, decoder_slope)
    yield "transposed_conv.weight", (16, classes, 3, 3)


def random_state(classes: int, **slopes: bool) -> State:
    generator = torch.Generator().manual_seed(0)

    def value(name: str, shape: tuple[int, ...]) -> Tensor:
        if not shape:
            return torch.tensor(7)
        if len(shape) == 4:
            fan_in = shape[0] * 4 if "tconv" in name or "transposed" in name else torch.Size(shape[1:]).numel()
            return torch.randn(shape, generator=generator) * (1.5 / fan_in) ** 0.5
        if name.endswith("running_var") or (name.endswith("weight") and shape != (1,)):
            return torch.rand(shape, generator=generator) + 0.5
        return 0.3 * torch.randn(shape, generator=generator)

    return {name: value(name, shape) for name, shape in shapes(classes, **slopes)}


class Reference:
    """The forward pass of PyTorch-ENet, straight from its tensors."""

    def __init__(self, state: State) -> None:
        self.state = state

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-5)
        return x * weight[:, None, None] + bias[:, None, None]

    def act(self, x: Tensor, name: str) -> Tensor:
        slope = self.state.get(f"{name}.weight")
        return torch.where(x > 0, x, x * (0 if slope is None else slope))

    def unit(self, x: Tensor, name: str, place: int = 0, **how: object) -> Tensor:
        x = F.conv2d(x, self.state[f"{name}.{place}.weight"], **how)
        return self.act(self.norm(x, f"{name}.{place + 1}"), f"{name}.{place + 2}")

    def main(self, x: Tensor, name: str, dilation: int = 1, stride: int = 1) -> Tensor:
        x = self.unit(x, f"{name}.ext_conv1", stride=stride)
        if name.startswith("asymmetric"):
            x = self.unit(x, f"{name}.ext_conv2", padding=(2, 0))
            x = self.unit(x, f"{name}.ext_conv2", 3, padding=(0, 2))
        else:
            x = self.unit(x, f"{name}.ext_conv2", padding=dilation, dilation=dilation)
        return self.unit(x, f"{name}.ext_conv3")

    def bottleneck(self, x: Tensor, name: str, dilation: int = 1) -> Tensor:
        return self.act(x + self.main(x, name, dilation), f"{name}.out_activation")

    def downsampling(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        main = self.main(x, name, stride=2)
        n, c, h, w = main.shape
        shortcut = torch.cat([pooled, torch.zeros(n, c - pooled.shape[1], h, w)], dim=1)
        return self.act(shortcut + main, f"{name}.out_activation"), indices

    def upsampling(self, x: Tensor, name: str, indices: Tensor) -> Tensor:
        shortcut = self.norm(F.conv2d(x, self.state[f"{name}.main_conv1.0.weight"]), f"{name}.main_conv1.1")
        main = self.unit(x, f"{name}.ext_conv1")
        main = F.conv_transpose2d(main, self.state[f"{name}.ext_tconv1.weight"], stride=2)
        main = self.act(self.norm(main, f"{name}.ext_tconv1_bnorm"), f"{name}.ext_tconv1_activation")
        main = self.norm(F.conv2d(main, self.state[f"{name}.ext_conv2.0.weight"]), f"{name}.ext_conv2.1")
        return self.act(main + F.max_unpool2d(shortcut, indices, 2), f"{name}.out_activation")

    def __call__(self, x: Tensor) -> Tensor:
        filtered = F.conv2d(x, self.state["initial_block.main_branch.weight"], stride=2, padding=1)
        x = torch.cat([filtered, F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)
        x = self.act(self.norm(x, "initial_block.batch_norm"), "initial_block.out_activation")
        x, indices1 = self.downsampling(x, "downsample1_0")
        for i in range(1, 5):
            x = self.bottleneck(x, f"regular1_{i}")
        x, indices2 = self.downsampling(x, "downsample2_0")
        for name, dilation in zip(STAGE_2 + STAGE_3, DILATIONS * 2, strict=True):
            x = self.bottleneck(x, name, dilation)
        x = self.upsampling(x, "upsample4_0", indices2)
        x = self.bottleneck(self.bottleneck(x, "regular4_1"), "regular4_2")
        x = self.bottleneck(self.upsampling(x, "upsample5_0", indices1), "regular5_1")
        return F.conv_transpose2d(x, self.state["transposed_conv.weight"], stride=2, padding=1, output_padding=1)
