"""bfloat16 and int8 from end to end, on networks whose every value they hold exactly: so nothing may differ."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from every_kind import EveryKind, with_whole_numbers
from torch import Tensor, nn

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.pipeline import Numerics, compile_module, graph_phases
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet
from enet_tvm.networks.enet import InitialBlock
from enet_tvm.networks.variant import PAPER
from enet_tvm.targets import load_target

LOW, HIGH = -100.0, 155.0
"""A range with codes that are whole numbers: scale 1."""


HEADS = {
    "1x1": lambda channels: nn.Conv2d(channels, 11, 1),
    "3x3": lambda channels: nn.Conv2d(channels, 5, 3, padding=1),
    "transposed": lambda channels: nn.ConvTranspose2d(channels, 11, 2, stride=2),
}


@pytest.fixture(scope="session")
def native() -> tvm.target.Target:
    return load_target("native").to_tvm()


def need(dtype: str, target: tvm.target.Target) -> None:
    if dtype != "float32" and not dot_products(target) & {"bfloat16" if dtype == "bfloat16" else "uint8", "int8"}:
        pytest.skip(f"this processor has no dot product of {dtype}")


def compiled(network: nn.Module, x: Tensor, target: tvm.target.Target, numerics: Numerics) -> tuple[np.ndarray, list[Launch]]:
    result = compile_module(from_torch(network.eval(), tuple(x.shape)), target, numerics=numerics)
    machine = tvm.relax.VirtualMachine(result.executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x.numpy())).numpy(), list(result.launches)


def layers_of(network: nn.Module, x: Tensor) -> dict[str, tuple[float, float]]:
    """Return the range LOW to HIGH for every module, having checked that values keep to it and are whole."""

    def check(name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        values = output[0] if isinstance(output, tuple) else output
        if name not in ("", "head"):
            assert values.min() >= LOW, name
            assert values.max() <= HIGH, name
            assert torch.equal(values, values.round()), name

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: check(name, output))
        for name, module in network.named_modules()
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return {name: (LOW, HIGH) for name, _ in network.named_modules()}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize(("channels", "head"), [(16, "1x1"), (32, "transposed"), (8, "3x3"), (64, "transposed")])
@torch.inference_mode()
def test_short_elements_are_exact_where_they_can_be(native, dtype: str, channels: int, head: str):
    need(dtype, native)
    network = with_whole_numbers(EveryKind(channels, HEADS[head](channels), inner=False), 2).eval()
    x = torch.randint(-3, 4, (2, 3, 20, 28), generator=torch.Generator().manual_seed(channels)).float()
    ranges = layers_of(network, x)
    expected = network(x).numpy()
    assert np.unique(expected).size >= 10, "the test network says too little"
    found, launches = compiled(network, x, native, Numerics(dtype, ranges))  # type: ignore[arg-type]
    assert sum(launch.layout.dtype != "float32" for launch in launches) >= 8
    # int8 multiplies by reciprocals, so its last bits may differ; a wrong code differs by a whole number.
    assert np.allclose(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("pool", [2, 3])
@pytest.mark.parametrize(("colours", "channels", "width"), [(3, 16, 44), (3, 32, 32), (5, 16, 26), (1, 8, 14)])
@torch.inference_mode()
def test_the_initial_block_is_exact_where_it_can_be(native, dtype: str, pool: int, colours: int, channels: int, width: int):
    """Its picture's codes are packed up to four to a word, and pooled as such."""
    need(dtype, native)
    generator = torch.Generator().manual_seed(width)
    block = InitialBlock(colours, channels, replace(PAPER, initial_pool=pool)).eval()
    block.norm.running_var.fill_(1 - block.norm.eps)
    network = nn.Sequential(OrderedDict(initial=block, head=nn.Conv2d(channels, 7, 1)))
    for parameter in network.parameters():
        parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
    # Less than 0, so that zeros from outside the picture would be found by a pooling.
    x = torch.randint(-4, 0, (2, colours, 12, width), generator=generator).float()
    inside = block(x)
    assert inside.min() >= LOW
    assert inside.max() <= HIGH
    ranges = dict.fromkeys(("input", "initial.act"), (LOW, HIGH))
    found, launches = compiled(network, x, native, Numerics(dtype, ranges))  # type: ignore[arg-type]
    assert launches[0].kernel == "initial_block"
    assert launches[0].layout.dtype != "float32"
    assert np.allclose(found, network(x).numpy(), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_winograd_between_tensors_of_bfloat16(native):
    """Its transforms and products are float32: only what is stored is rounded."""
    need("bfloat16", native)
    torch.manual_seed(0)
    middle = [nn.Conv2d(32, 32, 3, padding=1), nn.PReLU(32), nn.Conv2d(32, 32, 3, padding=4, dilation=4), nn.PReLU(32)]
    network = nn.Sequential(nn.Conv2d(3, 32, 1), *middle, nn.Conv2d(32, 32, 1), nn.Conv2d(32, 5, 1)).eval()
    x = torch.randn(1, 3, 45, 80)
    found, launches = compiled(network, x, native, Numerics("bfloat16"))
    between = [launch for launch in launches if launch.layout.dtype == "bfloat16"]
    assert sum("_winograd" in launch.kernel for launch in between) == 2
    expected = network(x).numpy()
    # Five tensors, each rounded to a relative half of 2^-8.
    assert np.abs(found - expected).max() <= 5 * 2**-9 * np.abs(expected).max()


@torch.inference_mode()
def test_codes_saturate_and_round(native):
    """What lies outside a layer's range is cut off at its ends, and the rest is within half a step."""
    need("int8", native)
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(16)[:, :3, None, None] * 2)
        network[0].bias.zero_()
        network[1].weight.copy_(torch.eye(16)[:, :, None, None])
        network[1].bias.zero_()
    x = torch.linspace(-4, 4, 3 * 8 * 8).reshape(1, 3, 8, 8)
    found, _ = compiled(network, x, native, Numerics("int8", {"0": (-2.0, 3.1)}))
    assert np.abs(found[:, :3] - np.clip(2 * x.numpy(), -2, 3.1)).max() <= 0.5 * 5.1 / 255 + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@torch.inference_mode()
def test_labels_are_those_of_the_logits(native, dtype: str):
    need(dtype, native)
    torch.manual_seed(0)
    network = ENet(11).eval()
    x = torch.randn(1, 3, 32, 48)
    ranges = dict.fromkeys(("input", *dict(network.named_modules())), (-4.0, 4.0))
    logits, plain = compiled(network, x, native, Numerics(dtype, ranges))  # type: ignore[arg-type]
    labels, launches = compiled(network, x, native, Numerics(dtype, ranges, labels=True))  # type: ignore[arg-type]
    assert labels.dtype == np.uint8
    assert labels.shape == (1, 32, 48)
    assert np.array_equal(labels, logits.argmax(axis=1))
    assert len(launches) == len(plain) == 91
    assert launches[-1].ops[-1] == "argmax"


@torch.inference_mode()
def test_labels_where_no_kernel_ends_in_them(native):
    """After an operator of TVM's own, its argmax follows."""
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Softmax(dim=1)).eval()
    x = torch.randn(1, 3, 6, 8)
    labels, _ = compiled(network, x, native, Numerics(labels=True))
    assert np.array_equal(labels, network(x).numpy().argmax(axis=1))


@torch.inference_mode()
def test_what_others_read_stays_float32(native):
    """Codes mean nothing to TVM's operators, and a pooling hands on what it reads."""
    need("int8", native)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
            self.pool, self.c = nn.MaxPool2d(2, return_indices=True), nn.Conv2d(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.pool(self.b(self.a(x)))
            return torch.cat([self.c(y), torch.softmax(y, 1)], 1)

    torch.manual_seed(1)
    network = Mixed().eval()
    x = torch.randn(1, 3, 8, 8)
    ranges = {name: (-4.0, 4.0) for name, _ in network.named_modules()}
    found, launches = compiled(network, x, native, Numerics("int8", ranges))
    assert [launch.layout.dtype for launch in launches if launch.layers == ("b",)] == ["float32"]
    assert [launch.layout.dtype for launch in launches if launch.layers == ("a",)] != ["float32"]
    assert np.abs(found - network(x).numpy()).max() < 0.05


@pytest.mark.slow
def test_a_target_without_the_instruction_is_a_sentence():
    target = load_target("x86-64-v3").to_tvm()
    mod = from_torch(ENet(3).eval(), (1, 3, 16, 16))
    with pytest.raises(UserError, match="x86-64-v3 has no dot product of int8"):
        compile_module(mod, target, numerics=Numerics("int8"))


@pytest.mark.parametrize("name", ["rpi3", "rpi4", "jetson-tx1-cpu", "aarch64-generic", "x86-64-v4", "zen4"])
def test_a_target_without_float16_is_a_sentence(name: str):
    target = load_target(name).to_tvm()
    sentence = f"{target.attrs['mcpu']} has no arithmetic of float16, so it would not be faster; leave --dtype out, or name a"
    with pytest.raises(UserError, match=f"^{sentence} target that has one$"):
        graph_phases(target, numerics=Numerics("float16"))


def test_a_layer_without_a_range_is_a_sentence(native):
    need("int8", native)
    mod = from_torch(ENet(3).eval(), (1, 3, 16, 16))
    with pytest.raises(UserError, match=r"no range for layer 'initial\.act'"):
        compile_module(mod, native, numerics=Numerics("int8"))
    with pytest.raises(UserError, match=r"no range for layer 'input'"):
        compile_module(mod, native, numerics=Numerics("int8", {"initial.act": (-1.0, 1.0)}))
