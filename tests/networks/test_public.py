"""Weights in the naming of PyTorch-ENet become the same network here; the reference below is written from its description."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import typer
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from enet_tvm.cli.import_weights import command
from enet_tvm.data.classes import CAMVID, CITYSCAPES
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, load_network, read_info
from enet_tvm.networks.public import convert_public_state, import_public, read_public_state
from enet_tvm.networks.variant import ENetVariant

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


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Up to rounding, of which the untrained network's large values have much."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(12)


@pytest.fixture
def checkpoint(state, tmp_path):
    path = tmp_path / "ENet"
    torch.save({"epoch": 3, "miou": 0.5, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.mark.parametrize("slopes", [{}, {"encoder_slope": False}, {"decoder_slope": True}], ids=str)
@torch.no_grad()
def test_logits_are_those_of_the_reference(slopes):
    state = random_state(12, **slopes)
    x = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    expected = Reference(state)(x)
    assert_same(convert_public_state(state)(x), expected)
    assert_same(convert_public_state(state, void=0)(x), expected[:, 1:])


def test_shapes_select_the_variant(state):
    network = convert_public_state(state)
    assert network.variant == ENetVariant(
        epsilon=1e-5,
        biases=False,
        initial_pool=3,
        inner_width="input",
        asymmetric_first="vertical",
        normalise_between=True,
        activate_expansion=True,
        slopes="layer",
        upsampling_kernel=2,
        head_kernel=3,
        decoder_dropout=0.1,
    )
    assert sum(p.numel() for p in network.parameters()) == sum(
        value.numel() for name, value in state.items() if not name.endswith(("running_mean", "running_var", "tracked"))
    )


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_forms_of_checkpoints(state, tmp_path, wrap):
    torch.save(wrap(state), tmp_path / "c.pth")
    assert read_public_state(tmp_path / "c.pth").keys() == state.keys()


def test_counters_of_batches_may_be_missing(state):
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert isinstance(convert_public_state(old), ENet)


def test_void_is_the_last_output_of_camvid_and_the_first_of_cityscapes(tmp_path):
    for class_set, kept in ((CAMVID, slice(0, 11)), (CITYSCAPES, slice(1, 20))):
        state = random_state(len(class_set) + 1)
        torch.save(state, tmp_path / "c.pth")
        network, info, left_out = import_public(tmp_path / "c.pth", class_set)
        assert torch.equal(network.fullconv.weight, state["transposed_conv.weight"][:, kept])
        assert info.classes == class_set.names
        assert (info.mean, info.std) == ((0, 0, 0), (1, 1, 1))
        assert "without a label" in left_out
    torch.save(random_state(11), tmp_path / "c.pth")
    assert import_public(tmp_path / "c.pth", CAMVID)[2] is None


def run(*arguments: object):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_command_writes_weights_that_load(checkpoint, state, tmp_path):
    output = run(checkpoint, "-o", tmp_path / "w.safetensors", "--json", tmp_path / "w.json").output
    assert "enet with 11 classes of camvid" in output
    assert "initial_pool = 3" in output
    assert "output 11, for pixels without a label, was left out" in output
    network = load_network(tmp_path / "w.safetensors")
    assert network.variant.initial_pool == 3
    assert read_info(tmp_path / "w.safetensors").notes == {"imported_from": "ENet, a checkpoint of PyTorch-ENet"}
    x = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(network(x), Reference(state)(x)[:, :11])


def test_bad_input(checkpoint, state, tmp_path):
    other = tmp_path / "other.pth"

    def refused(sentence: str, content: object, class_set=CAMVID) -> None:
        torch.save(content, other)
        with pytest.raises(UserError, match=sentence):
            import_public(other, class_set)

    refused("has 12 outputs and cityscapes has 19", state, CITYSCAPES)
    refused("no convolution 'transposed_conv.weight'", {"a.weight": torch.zeros(1)})
    refused("holds no state dict", {"state_dict": {}})
    refused("holds no state dict", [1, 2])
    refused("no tensor 'head.weight'", state | {"head.weight": torch.zeros(1)})
    refused("bottleneck2_3.expand.0.weight", {k: v for k, v in state.items() if k != "asymmetric2_3.ext_conv3.0.weight"})
    refused(r"'initial.conv.weight'.*\(13, 4, 3, 3\)", state | {"initial_block.main_branch.weight": torch.zeros(13, 4, 3, 3)})
    refused("'upsampling_kernel' is not an option", state | {"upsample4_0.ext_tconv1.weight": torch.zeros(32, 32, 4, 4)})
    with pytest.raises(UserError, match="no class set 'pascal'"):
        run(checkpoint, "-o", tmp_path / "w", "--classes", "pascal")
    with pytest.raises(UserError, match="there is no file"):
        import_public(tmp_path / "none.pth", CAMVID)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04K\x01."])
def test_files_that_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a checkpoint of tensors alone|holds no state dict"):
        read_public_state(path)


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    torch.save({"state_dict": Bomb()}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="not a checkpoint of tensors alone"):
        read_public_state(tmp_path / "c.pth")
