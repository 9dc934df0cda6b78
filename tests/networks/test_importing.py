"""Whatever wraps a network, the same logits come out; what cannot be imported is refused with what to do."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import warnings
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_enet import Reference, random_state
from torch import nn

from enet_tvm.cli.main import main
from enet_tvm.data.classes import CAMVID, CITYSCAPES, SUNRGBD, ClassSet
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ENetVariant, SegNet, WeightsInfo, load_network, read_info, save_network
from enet_tvm.networks.checkpoint_file import find_state_dicts
from enet_tvm.networks.importing import find_network, import_weights, parse_channels
from enet_tvm.training.checkpoint import Checkpoint, save_checkpoint

FIVE = ClassSet("five", tuple("abcde"), tuple((n, n, n) for n in range(5)), 255)
PREFIXES = ("module", "model", "_orig_mod", "net", "network", "ema_model", "student.backbone", "_fsdp_wrapped_module")
NESTS = ("state_dict", "model", "model_state_dict", "ema", "network")


@pytest.fixture(scope="module")
def network(randomised) -> ENet:
    return randomised(ENet(5))


@pytest.fixture(scope="module")
def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(1)))


def prefixed(state: dict[str, Any], *prefix: str) -> dict[str, Any]:
    return {".".join((*prefix, key)): value for key, value in state.items()}


@given(
    prefix=st.lists(st.sampled_from(PREFIXES), max_size=4),
    nests=st.lists(st.sampled_from(NESTS), max_size=3),
    beside=st.dictionaries(st.sampled_from(["epoch", "miou", "optimizer", "scheduler"]), st.just({"lr": 0.1})),
)
@settings(deadline=None, max_examples=60)
def test_any_nesting_and_prefix(state, prefix, nests, beside):
    content: dict[str, Any] = prefixed(state, *prefix)
    for nest in reversed(nests):
        content = beside | {nest: content}
    [found] = find_state_dicts(content)
    assert found.naming == "enet"
    assert found.label == ".".join((*nests, *prefix))
    assert found.tensors.keys() == state.keys()
    assert all(found.tensors[key] is value for key, value in state.items())


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "content",
    [
        lambda s: s,
        lambda s: prefixed(s, "module", "module"),
        lambda s: {
            "state_dict": prefixed(s, "model") | {"criterion.weight": torch.ones(5)},
            "pytorch-lightning_version": "2.5",
        },
        lambda s: {"n_averaged": torch.tensor(3)} | prefixed(s, "module"),
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda s: {key.replace("initial.", "initial._orig_mod."): value for key, value in s.items()},
    ],
)
def test_files_of_torch_save(network, state, content, tmp_path):
    torch.save(content(state), tmp_path / "x.pt")
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE).network), logits(network))


def test_a_file_of_before_pytorch_1_6(network, state, tmp_path):
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE).network), logits(network))


def test_a_data_parallel_module(network, tmp_path):
    torch.save(nn.DataParallel(network).state_dict(), tmp_path / "x.pt")
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE).network), logits(network))


@pytest.mark.slow
def test_an_averaged_model(network, tmp_path):
    torch.save(torch.optim.swa_utils.AveragedModel(network).state_dict(), tmp_path / "x.pt")
    imported = import_weights(tmp_path / "x.pt", FIVE)
    assert torch.equal(logits(imported.network), logits(network))
    assert "left out what is beside the network: n_averaged" in imported.notes


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precisions_become_float32(state, dtype, suffix, tmp_path):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save(stored, tmp_path / f"x{suffix}")
    made = import_weights(tmp_path / f"x{suffix}", FIVE).network.state_dict()
    for key, value in stored.items():
        assert made[key].dtype == state[key].dtype
        assert torch.equal(made[key], value.to(made[key].dtype))


def test_a_file_saved_on_a_gpu(network, state, tmp_path):
    """Its storages say cuda:0, whatever machine reads it."""
    location = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    try:
        torch.save(state, tmp_path / "x.pt")
    finally:
        torch.serialization.location_tag = location
    assert b"cuda:0" in (tmp_path / "x.pt").read_bytes()
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE).network), logits(network))


def test_numbers_of_numpy_and_arguments_beside_the_tensors(network, state, tmp_path):
    """PyTorch-ENet's trainer stores its mIoU as NumPy computed it; torchvision's store their arguments."""
    beside = {"miou": np.float64(0.5), "epoch": np.int64(3), "best": np.float32(0.25), "done": np.bool_(True)}
    beside |= {"iou": np.arange(3.0), "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"))}
    torch.save({"state_dict": state} | beside, tmp_path / "x.pt")
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE).network), logits(network))


def test_numbers_of_numpy_1(state, tmp_path):
    """It called the module that makes them by another name."""
    torch.save({"miou": np.float64(0.5), "state_dict": state}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pt").read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    (tmp_path / "x.pt").write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert find_network(tmp_path / "x.pt").outputs == 5


@pytest.mark.slow
def test_the_average_is_taken_first(network, state, randomised, tmp_path):
    other = randomised(ENet(5), 1)
    for content in (
        {"model": other.state_dict(), "ema": {"module": prefixed(state, "module")}},
        prefixed(other.state_dict(), "online_model") | prefixed(state, "ema_model"),
        {"state_dict": other.state_dict(), "state_dict_ema": state},
    ):
        torch.save(content, tmp_path / "x.pt")
        imported = import_weights(tmp_path / "x.pt", FIVE)
        assert torch.equal(logits(imported.network), logits(network))
        assert "ema" in imported.notes[0].split(", and not ")[0]
        assert "--state chooses another" in imported.notes[0]
    torch.save({"model": other.state_dict(), "ema": {"module": state}}, tmp_path / "x.pt")
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE, state="model").network), logits(other))
    with pytest.raises(UserError, match=r"'model', 'ema.module', and 'swa' means none of them"):
        import_weights(tmp_path / "x.pt", FIVE, state="swa")


@pytest.mark.slow
def test_an_average_of_the_parameters_alone_is_passed_over(network, state, tmp_path):
    parameters = {key: torch.zeros_like(value) for key, value in network.named_parameters()}
    torch.save({"model": state, "ema": {"shadow": parameters}}, tmp_path / "x.pt")
    imported = import_weights(tmp_path / "x.pt", FIVE)
    assert torch.equal(logits(imported.network), logits(network))
    assert imported.notes[0] == "found under 'model'"


def test_networks_that_nothing_tells_apart(state, tmp_path):
    torch.save({"teacher": dict(state), "student": dict(state)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"'teacher', 'student'; choose one: enet-tvm import-weights .* --state teacher"):
        find_network(tmp_path / "x.pt")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "variant",
    [
        ENetVariant(),
        ENetVariant(biases=False, slopes="layer", upsampling_kernel=2, head_kernel=3),
        ENetVariant(inner_width="input", asymmetric_first="vertical", normalise_between=True, activate_expansion=True),
        ENetVariant(encoder_activation="relu", decoder_activation="prelu"),
        ENetVariant(encoder_activation="relu"),
    ],
)
def test_tensors_show_the_variant(variant, randomised, tmp_path):
    network = randomised(ENet(5, variant))
    torch.save(network.state_dict(), tmp_path / "x.pt")
    imported = import_weights(tmp_path / "x.pt", FIVE)
    assert imported.network.variant == variant
    assert torch.equal(logits(imported.network), logits(network))


def test_options_that_tensors_do_not_show(randomised, tmp_path):
    told = {"epsilon": 1e-5, "initial_pool": 3}
    network = randomised(ENet(5, ENetVariant.from_json(told)))
    torch.save(network.state_dict(), tmp_path / "x.pt")
    assert torch.equal(logits(import_weights(tmp_path / "x.pt", FIVE, variant=told).network), logits(network))
    with pytest.raises(UserError, match="show head_kernel = 2, and not 3"):
        import_weights(tmp_path / "x.pt", FIVE, variant={"head_kernel": 3})


@pytest.mark.slow
def test_segnet(tmp_path):
    network = SegNet(2).eval()
    torch.save({"state_dict": prefixed(network.state_dict(), "module")}, tmp_path / "x.pt")
    imported = import_weights(tmp_path / "x.pt", ClassSet("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)), 255))
    assert imported.info.network == "segnet"
    assert torch.equal(logits(imported.network), logits(network))


@pytest.mark.parametrize(("class_set", "kept"), [(CAMVID, slice(0, 11)), (CITYSCAPES, slice(1, 20))])
def test_void_is_the_last_output_of_camvid_and_the_first_of_cityscapes(class_set, kept, tmp_path):
    state = random_state(len(class_set) + 1)
    torch.save({"state_dict": state, "miou": np.float64(0.5)}, tmp_path / "c.pth")
    imported = import_weights(tmp_path / "c.pth")
    assert torch.equal(imported.network.fullconv.weight, state["transposed_conv.weight"][:, kept])
    assert imported.info.classes == class_set.names
    assert (imported.info.mean, imported.info.std) == ((0, 0, 0), (1, 1, 1))
    assert "without a label" in imported.left_out
    x = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    expected = Reference(state)(x)[:, kept]
    assert (logits(imported.network) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_public_network_without_void(tmp_path):
    torch.save(random_state(11), tmp_path / "c.pth")
    assert import_weights(tmp_path / "c.pth", CAMVID).left_out is None


def test_files_of_this_project_say_what_they_are_of(network, state, tmp_path):
    info = WeightsInfo("enet", FIVE.names, FIVE.palette, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    save_network(network, info, tmp_path / "own.safetensors")
    imported = import_weights(tmp_path / "own.safetensors").info
    assert (imported.classes, imported.palette, imported.mean, imported.std) == (
        info.classes,
        info.palette,
        info.mean,
        info.std,
    )
    averaged = {key: value + 0 for key, value in state.items()}
    untrained = ENet(5).state_dict()
    save_checkpoint(Checkpoint("{}", list(CAMVID.names[:5]), 1, untrained, averaged, {}, 0, 0.0), tmp_path / "checkpoint.pt")
    made = import_weights(tmp_path / "checkpoint.pt")
    assert made.info.classes == CAMVID.names[:5]
    assert torch.equal(logits(made.network), logits(network))


def refused(path: pathlib.Path, content: Any, sentence: str, classes: ClassSet | None = FIVE) -> None:
    torch.save(content, path)
    with pytest.raises(UserError, match=sentence):
        import_weights(path, classes)


@pytest.mark.slow
def test_bad_content(state, tmp_path):
    path = tmp_path / "x.pt"
    lost = {key: value for key, value in state.items() if not key.startswith("bottleneck3_8.expand")}
    refused(path, lost, r"it lacks 'bottleneck3_8.expand.0.weight', .* and 2 more")
    refused(path, state | {"aux.weight": torch.ones(2)}, "it has 'aux.weight' besides")
    refused(path, {"state_dict": {}}, "no state dict with the tensors of ENet")
    refused(path, {"a.weight": torch.zeros(1)}, "no state dict with the tensors of ENet")
    refused(path, [1, 2], "holds no state dict but a list")
    refused(path, state, "has 5 outputs and camvid has 11 classes", CAMVID)
    refused(path, state, "--classes 5", None)
    refused(path, random_state(7), "--classes 7", None)
    refused(path, random_state(12), "12 outputs and sunrgbd has 37", SUNRGBD)
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = state["bottleneck2_1.conv.0.weight"].clone()
        broken[3] = value
        refused(
            path, state | {"bottleneck2_1.conv.0.weight": broken}, r"288 of .* NaN or infinite in 'bottleneck2_1.conv.0.weight'"
        )
    huge = {key: value.double() * (1e39 if key == "initial.conv.weight" else 1) for key, value in state.items()}
    refused(path, huge, "infinite in 'initial.conv.weight'")
    refused(path, state | {"initial.norm.running_var": -torch.ones(16)}, "variance below zero")
    refused(path, state | {"fullconv.weight": torch.ones(16, 5, 2, 2, dtype=torch.int8)}, "'fullconv.weight' is torch.int8")
    refused(path, state | {"fullconv.bias": torch.ones(5).to_sparse()}, "'fullconv.bias' is torch.float32 and torch.sparse")
    with pytest.raises(UserError, match="there is no file"):
        import_weights(tmp_path / "none.pth", FIVE)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 3}])
def test_a_whole_module_is_refused_with_what_saves_it(network, legacy, wrap, tmp_path):
    torch.save(wrap(network), tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"whole pickled module.*torch.save\(model.state_dict\(\), 'weights.pt'\)") as caught:
        find_network(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_torchscript_program(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 1, 1), torch.ones(1, 3, 4, 4)), tmp_path / "x.pt")
    with warnings.catch_warnings(record=True) as said, pytest.raises(UserError, match="TorchScript program"):
        find_network(tmp_path / "x.pt")
    assert said == []


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04K\x01.", b"PK\x03\x04damaged"])
def test_files_that_are_no_checkpoints(content, tmp_path):
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a checkpoint of tensors alone|holds no state dict"):
        find_network(path)


def test_nothing_in_a_checkpoint_is_run(state, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    torch.save({"state_dict": state, "config": Bomb()}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"not a checkpoint of tensors alone: reading its '\S*_Fail\S*' would run code"):
        find_network(tmp_path / "c.pth")


def test_a_dict_that_holds_itself(state):
    content: dict[str, Any] = {"model": state}
    content["self"] = [content, content]
    assert [found.label for found in find_state_dicts(content)] == ["model"]


@pytest.mark.parametrize(
    ("text", "values"),
    [("0.5", (0.5, 0.5, 0.5)), ("0.1,0.2,0.3", (0.1, 0.2, 0.3)), (" ImageNet", (0.485, 0.456, 0.406)), ("0", (0, 0, 0))],
)
def test_channels(text, values):
    assert parse_channels(text, "--mean", (0.485, 0.456, 0.406)) == values


@pytest.mark.parametrize("text", ["", "a", "1,2", "nan", "inf,1,1", "0", "-1", "0.5,0.5,0"])
def test_a_std_that_nothing_can_be_divided_by(text):
    with pytest.raises(UserError, match="above zero"):
        parse_channels(text, "--std", (1, 1, 1))


def test_a_mean_of_pictures_up_to_255():
    with pytest.raises(UserError, match="divide it by 255"):
        parse_channels("123.675,116.28,103.53", "--mean", (0, 0, 0))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("verb", "suffix"),
    [
        ("info", ".safetensors"),
        ("evaluate --data synthetic", ".pt"),
        ("compile -o out", ".pt"),
        ("export -o o.onnx", ".pt"),
        ("plot prelu -o p.png", ".safetensors"),
    ],
)
def test_refusals_say_the_command_that_imports(state, suffix, verb, tmp_path, monkeypatch, capfd):
    """And it does."""
    monkeypatch.chdir(tmp_path)
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, f"my net{suffix}")
    with pytest.raises(SystemExit) as caught:
        main([*shlex.split(verb), "--weights", f"my net{suffix}"])
    assert caught.value.code == 2
    sentence = capfd.readouterr().err
    assert sentence.count("\n") == 1
    command = shlex.split(sentence.partition("import it first: enet-tvm ")[2])
    assert command[:2] == ["import-weights", f"my net{suffix}"]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 0
    made = command[command.index("-o") + 1]
    assert len(read_info(made).classes) == 5
    stored = load_network(made).state_dict()
    assert all(torch.equal(stored[key], value.half().to(value.dtype)) for key, value in state.items() if value.ndim)
