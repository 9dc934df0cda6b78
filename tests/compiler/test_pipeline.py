"""ENet through the whole pipeline: few launches, PyTorch's result on every target, size and number of classes."""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from certain_pictures import certain
from torch import nn
from tvm import relax

from enet_tvm.artifact import elf_architecture
from enet_tvm.compiler import pipeline
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.ops import PLANAR
from enet_tvm.compiler.pipeline import Compiled, compile_module, graph_phases
from enet_tvm.errors import UserError
from enet_tvm.machine import cpu_features
from enet_tvm.networks import ENet
from enet_tvm.networks.enet import InitialBlock
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec, load_target

SIZE = Size(48, 32)
ARM = TargetSpec(name="arm", description="a board", triple="aarch64-linux-gnu", mcpu="cortex-a72")


@pytest.fixture(scope="module")
def network(randomised) -> nn.Module:
    return randomised(ENet(11))


@pytest.fixture(scope="module")
def imported(network: nn.Module) -> tvm.IRModule:
    return from_torch(network, (1, 3, SIZE.height, SIZE.width))


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump") / "ir"


@pytest.fixture(scope="module")
def compiled(imported: tvm.IRModule, dump: Path) -> Compiled:
    return compile_module(imported, load_target("native").to_tvm(), dump)


def run(compiled: Compiled, x: torch.Tensor) -> np.ndarray:
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x.numpy())).numpy()


CASES = [
    ("x86-64-v4", Size(8, 8), 1, 2),
    pytest.param("x86-64-v3", Size(40, 72), 3, 12, marks=pytest.mark.slow),
    pytest.param("x86-64-v2", Size(104, 56), 1, 19, marks=pytest.mark.slow),
    pytest.param("x86-64-v4", Size(480, 24), 1, 20, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "size", "batch", "classes"), CASES, ids=lambda value: str(value))
def test_parity(randomised, name: str, size: Size, batch: int, classes: int):
    target = load_target(name)
    if lacking := sorted(set(target.cpu_features) - cpu_features()):
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    network, shape = randomised(ENet(classes), seed=classes), (batch, 3, size.height, size.width)
    x, expected = certain(network, shape)
    compiled = compile_module(from_torch(network, shape), target.to_tvm())
    actual = run(compiled, x)
    assert actual.shape == (batch, classes, size.height, size.width)
    assert actual.dtype == np.float32
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=1e-5)
    assert np.mean(actual.argmax(1) == expected.argmax(1)) > 0.999
    assert len(compiled.launches) <= 95


@pytest.mark.slow
def test_pictures_of_a_batch_do_not_touch(randomised):
    """The third picture of a batch gets what it gets alone: the same additions in the same order."""
    block = randomised(nn.Sequential(InitialBlock(), nn.Conv2d(16, 16, 3, padding=1), nn.ConvTranspose2d(16, 5, 2, stride=2)))
    target = load_target("native").to_tvm()
    x = torch.randn((3, 3, 16, 24), generator=torch.Generator().manual_seed(0))
    alone, together = (run(compile_module(from_torch(block, y.shape), target), y) for y in (x[2:], x))
    assert np.array_equal(together[2], alone[0])


@pytest.mark.slow
def test_few_launches(compiled: Compiled):
    """The paper blames their number; TVM's own fusion makes 103, one kernel a convolution 91."""
    assert len(compiled.launches) <= 95


def test_what_is_fused(compiled: Compiled):
    found = Counter(launch.ops for launch in compiled.launches)
    plain = ("conv2d", "bias_add")
    assert found == {
        ("conv2d", "bias_add", "max_pool2d", "multiply", "add", "concat", "prelu"): 1,
        # The convolutions inside the encoder's bottlenecks, the first halves of asymmetric ones apart.
        (*plain, "prelu"): 22 * 2,
        plain: 4 + 2,
        # Shortcuts as they are, with more channels after downsampling, and unpooled.
        (*plain, "add", "prelu"): 20,
        (*plain, "pad", "add", "prelu"): 2,
        (*plain, "add", "relu"): 3,
        (*plain, "max_unpool2d", "add", "relu"): 2,
        # The decoder.
        (*plain, "relu"): 3 * 2 + 2,
        ("conv2d_transpose", "bias_add", "relu"): 2,
        ("conv2d_transpose", "bias_add"): 1,
        ("max_pool2d_with_window",): 2,
    }


def test_launches_say_what_they_compute(compiled: Compiled, network: nn.Module):
    modules = dict(network.named_modules())
    for launch in compiled.launches:
        assert launch.layers
        assert set(launch.layers) <= set(modules)
        assert launch.kernel.startswith(("initial_block", launch.ops[0]))
    layers = Counter(layer for launch in compiled.launches for layer in launch.layers)
    assert set(layers.values()) == {1}
    passing = nn.Dropout2d | nn.Identity | nn.BatchNorm2d
    working = {name for name, m in modules.items() if not list(m.children()) and not isinstance(m, passing)}
    assert working <= set(layers)
    assert compiled.launches[0].layers[-1] == "initial.act"
    assert compiled.launches[-1].layers == ("fullconv",)
    assert compiled.launches[-1].shape == (1, 11, SIZE.height, SIZE.width)


def test_flops_are_the_networks(compiled: Compiled, network: nn.Module):
    """Counted over the launches as over the layers; batch norms have gone into the convolutions."""
    madds = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal madds
        side = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        madds += side[0, 0].numel() * module.weight.numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]  # fmt: skip
    with torch.no_grad():
        network(torch.zeros(1, 3, SIZE.height, SIZE.width))
    for hook in hooks:
        hook.remove()
    assert sum(launch.flops for launch in compiled.launches) == 2 * madds


def test_the_blocks_are_the_targets_vectors(compiled: Compiled):
    lanes = pipeline.VectorUnit.of(load_target("native").to_tvm()).lanes
    assert {launch.layout.block for launch in compiled.launches[:-1]} <= {4, lanes}
    assert lanes in {launch.layout.block for launch in compiled.launches}
    assert compiled.launches[-1].layout == PLANAR


@pytest.mark.slow
def test_a_file_for_each_phase(compiled: Compiled, dump: Path):
    names = ["import", *(phase.name for phase in graph_phases(load_target("native").to_tvm())), "virtual-machine"]
    files = sorted(dump.iterdir())
    assert [file.name for file in files] == [f"{number:02d}-{name}.py" for number, name in enumerate(names)]
    texts = [file.read_text() for file in files]
    for text in texts:
        ast.parse(text)
    assert all(a != b for a, b in pairwise(texts[:6]))
    assert "batch_norm" in texts[0]
    assert "R.nn.batch_norm" not in texts[1]
    assert '"enet.initial_block"' in texts[2]
    assert "R.nn.conv2d" not in texts[3]
    assert "call_tir" in texts[5]
    assert "dataflow" not in texts[-1]


def test_the_table_of_contents_is_that_of_the_pipeline():
    listed = [line.split()[1] for line in pipeline.__doc__.splitlines() if line[:1].isdigit()]
    phases = [phase.name for phase in graph_phases(load_target("native").to_tvm())]
    assert listed == ["import", *phases, pipeline.machine_phase().name]


def test_a_dump_that_cannot_be_written(network_of, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    mod = from_torch(network_of(lambda _, x: torch.relu(x)), (1, 3, 8, 8))
    with pytest.raises(UserError, match="cannot write"):
        compile_module(mod, load_target("native").to_tvm(), tmp_path / "file" / "ir")


@pytest.mark.slow
def test_code_for_another_architecture(imported: tvm.IRModule, compiled: Compiled, tmp_path: Path):
    """A board's code is made here: four lanes and 32 registers, the same launches, an object file of its own kind."""
    arm = compile_module(imported, ARM.to_tvm())

    def keep(output: str, objects: list[str], options: list[str] | None = None) -> None:
        shutil.copy(objects[0], output)

    keep.output_format, keep.object_format = "so", "o"  # type: ignore[attr-defined]
    arm.executable.export_library(str(tmp_path / "enet.so"), fcompile=keep)
    assert elf_architecture(tmp_path / "enet.so") == "aarch64"
    assert [launch.ops for launch in arm.launches] == [launch.ops for launch in compiled.launches]
    assert {launch.layout.block for launch in arm.launches[:-1]} == {4}


OTHERS: dict[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {
    "softmax": lambda net, x: torch.softmax(net.conv(x), 1),
    "cumsum": lambda net, x: torch.cumsum(net.conv(x), 3),
    "sort": lambda net, x: torch.sort(net.conv(x), dim=1).values,
    "best classes": lambda net, x: torch.topk(net.conv(x), 2, dim=1).values,
    "resizing": lambda net, x: nn.functional.interpolate(net.conv(x), scale_factor=2, mode="bilinear"),
    "global pooling": lambda net, x: net.conv(x) * torch.sigmoid(net.gate(x.mean((2, 3), keepdim=True))),
    "groups": lambda net, x: net.conv(net.grouped(x)),
    "linear": lambda net, x: net.linear(net.conv(x).mean((2, 3))),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", OTHERS)
def test_what_no_template_covers_is_compiled_too(network_of, name: str):
    network = network_of(
        OTHERS[name],
        conv=nn.Conv2d(16, 16, 1),
        grouped=nn.Conv2d(16, 16, 3, padding=1, groups=4),
        gate=nn.Conv2d(16, 16, 1),
        linear=nn.Linear(16, 3),
    )
    x = torch.randn((1, 16, 6, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x).numpy()
    compiled = compile_module(from_torch(network, x.shape), load_target("native").to_tvm())
    np.testing.assert_allclose(run(compiled, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert all(isinstance(launch, Launch) for launch in compiled.launches)


@pytest.mark.parametrize("target", ["native", "h100"])
def test_tensors_of_more_elements_than_kernels_count_are_refused(relax_main, target: str, request: pytest.FixtureRequest):
    """Nothing is compiled for it: the logits of 64 pictures of 1920x1080, of 19 classes, begin to overwrite themselves."""
    spec = load_target(target)
    mod = relax_main(lambda builder, x: builder.emit(relax.op.nn.relu(x)), (64, 19, 1080, 1920))
    with pytest.raises(UserError, match=r"^a tensor of 64x19x1080x1920 has 2,521,497,600 elements, .*; give a smaller --b"):
        pipeline.require_indexable(mod)
    if spec.gpu is not None:
        request.getfixturevalue("tools")
    with pytest.raises(UserError, match="a tensor of 64x19x1080x1920 has"):
        compile_module(mod, spec.to_tvm(), gpu=spec.gpu)


def test_the_last_size_that_kernels_count(relax_main):
    for elements, fits in ((2**31 - 1, True), (2**31, False)):
        mod = relax_main(lambda builder, x: builder.emit(relax.op.nn.relu(x)), (1, 1, 1, elements))
        if fits:
            pipeline.require_indexable(mod)
        else:
            with pytest.raises(UserError, match="elements"):
                pipeline.require_indexable(mod)
