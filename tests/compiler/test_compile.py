"""From a weights file to an artifact: the same every time, complete or not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled import compile_request
from torch import nn

from enet_tvm.artifact import LIBRARY_NAME, MANIFEST_NAME, check_artifact, read_manifest
from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.linking import Linker
from enet_tvm.compiler.workload import Workload
from enet_tvm.data.classes import CAMVID
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.networks import NetworkInMemory, SegNet, WeightsInfo, save_network
from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec, load_target
from enet_tvm.version import __version__, stack_versions

INFO = WeightsInfo("tiny", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
SIZE = Size(24, 16)


@pytest.fixture
def tiny(randomised) -> nn.Module:
    """A network that compiles in no time."""
    return randomised(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)))


@pytest.fixture
def request_of(tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CompileRequest]:
    """Makes ``request_of(batch=2)`` what compiles the tiny network, which stands in for the one the weights are of."""
    weights = tmp_path / "tiny.safetensors"
    save_network(tiny, INFO, weights)
    monkeypatch.setattr(compiler, "load_network", lambda path: tiny)

    def make(**changes: Any) -> CompileRequest:
        return compile_request(**{"weights": weights, "size": SIZE, "target": load_target("native"), **changes})

    return make


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_manifest_of_enet(compiled_enet):
    manifest = check_artifact(compiled_enet.directory)
    target = load_target("native")
    assert manifest.network == "enet"
    assert (manifest.classes, manifest.palette) == (CAMVID.names, CAMVID.palette)
    assert manifest.input.shape == (1, 3, 48, 64)
    assert manifest.output.shape == (1, len(CAMVID), 48, 64)
    assert (manifest.input.mean, manifest.input.std) == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert (manifest.target.name, manifest.target.mcpu, manifest.target.triple) == ("native", target.mcpu, target.triple)
    assert manifest.target.cpu_features == target.cpu_features
    versions = stack_versions()
    assert manifest.versions.enet_tvm == __version__
    assert manifest.versions.apache_tvm == versions["apache-tvm"]
    assert manifest.versions.apache_tvm_ffi == versions["apache-tvm-ffi"]
    assert manifest.hashes.weights == sha256(compiled_enet.weights)
    assert manifest.hashes.library == sha256(compiled_enet.directory / LIBRARY_NAME)
    assert manifest.command == "pytest"


def test_kernels_of_enet(compiled_enet):
    manifest = read_manifest(compiled_enet.directory)
    library = (compiled_enet.directory / LIBRARY_NAME).read_bytes()
    assert manifest.kernel_count == len(manifest.kernels) <= 95
    for kernel in manifest.kernels:
        assert kernel.name.encode() in library
        assert kernel.ops
        assert kernel.layers
    layouts = {kernel.name: kernel.output_layout for kernel in manifest.kernels}
    assert layouts["max_pool2d_with_window"] is None, "it writes two tensors"
    last = manifest.kernels[-1].output_layout
    assert (last.shape, last.block, last.pad) == (manifest.output.shape, 1, 0)


@pytest.mark.slow
def test_the_same_request_gives_the_same_bytes(request_of, tmp_path: Path):
    """Of ENet, and in another process, too: `tests/cli/test_compile.py`."""
    for name in "ab":
        compile_artifact(request_of(), tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.slow
def test_another_request_gives_other_bytes(request_of, tmp_path: Path):
    """Or the test before could not fail."""
    for name, changes in {"a": {}, "b": {"size": Size(32, 16)}, "c": {"batch": 2}}.items():
        compile_artifact(request_of(**changes), tmp_path / name)
    assert len({sha256(tmp_path / name / LIBRARY_NAME) for name in "abc"}) == 3


@pytest.mark.parametrize("batch", [1, 3])
def test_what_was_compiled_runs(request_of, tiny: nn.Module, tmp_path: Path, batch: int):
    manifest = compile_artifact(request_of(batch=batch, command="x"), tmp_path / "artifact")
    assert manifest.input.shape == (batch, 3, 16, 24)
    assert manifest.classes == ("road", "sky")
    assert manifest.command == "x"
    x = torch.randn((batch, 3, 16, 24), generator=torch.Generator().manual_seed(0))
    with Segmenter.load(tmp_path / "artifact", threads=1) as segmenter, torch.no_grad():
        np.testing.assert_allclose(segmenter.forward(x.numpy()), tiny(x).numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_targets_size_is_the_default(request_of, tmp_path: Path):
    target = load_target("native").model_copy(update={"size": Size(40, 8)})
    assert compile_artifact(request_of(size=None, target=target), tmp_path / "a").input.shape == (1, 3, 8, 40)
    assert compile_artifact(request_of(target=target), tmp_path / "b").input.shape == (1, 3, 16, 24)


def test_an_artifact_is_replaced(request_of, tmp_path: Path):
    compile_artifact(request_of(), tmp_path / "artifact")
    manifest = compile_artifact(request_of(size=Size(32, 8)), tmp_path / "artifact")
    assert check_artifact(tmp_path / "artifact") == manifest
    assert sorted(files(tmp_path / "artifact")) == [LIBRARY_NAME, MANIFEST_NAME]


class Failing(Linker):
    """Writes half a library, then stops as `error` says."""

    error: BaseException

    def __call__(self, output: str | Path, objects: Any, options: Any = None) -> None:
        Path(output).write_bytes(b"\x7fELF half a library")
        raise self.error


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no linker"), RuntimeError("ld: killed")], ids=repr)
@pytest.mark.parametrize("before", [True, False], ids=["replacing", "new"])
def test_an_interrupted_write_leaves_what_was_there(
    request_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
):
    place = tmp_path / "place"
    if before:
        compile_artifact(request_of(), place / "artifact")
    old = files(place)
    linker = Failing(("false",), "x86_64-unknown-linux-gnu")
    object.__setattr__(linker, "error", error)
    monkeypatch.setattr(compiler, "host_linker", lambda *_: linker)
    with pytest.raises(type(error)):
        compile_artifact(request_of(size=Size(32, 8)), place / "artifact")
    assert files(place) == old
    assert len(list(place.iterdir())) == before, "nothing temporary is left either"


def test_a_library_that_would_not_load_is_no_artifact(request_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here a linker that makes something else than a library."""

    class Copying(Linker):
        def __call__(self, output: str | Path, objects: Any, options: Any = None) -> None:
            shutil.copy(objects[0], output)

    monkeypatch.setattr(compiler, "host_linker", lambda *_: Copying(("cp",), "x86_64-unknown-linux-gnu"))
    with pytest.raises(UserError, match="would not load"):
        compile_artifact(request_of(), tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_directory_in_use_is_refused_before_the_work(request_of, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        compile_artifact(request_of(weights=tmp_path / "none.safetensors"), tmp_path)


def test_missing_weights(request_of, tmp_path: Path):
    with pytest.raises(UserError, match="there is no file"):
        compile_artifact(request_of(weights=tmp_path / "none.safetensors"), tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_processor_that_llvm_does_not_know(request_of, tmp_path: Path):
    target = TargetSpec(name="z80", description="d", triple="x86_64-linux-gnu", mcpu="z80")
    with pytest.raises(UserError, match="LLVM knows no processor 'z80'"):
        compile_artifact(request_of(target=target), tmp_path / "artifact")


class Own(nn.Module):
    """A network of somebody's own, unlike any of the project's: it is in no table and in no file."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mix = nn.Conv2d(16, 12, 1)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sigmoid(self.norm(self.down(x)))
        y = self.mix(y * torch.relu(self.depthwise(y)))
        return self.last(torch.nn.functional.elu(self.up(y)))


OWN = WeightsInfo("own", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_any_module_compiles(randomised, tmp_path: Path):
    """Also in batches, from a training's mode, and with a name that no table has."""
    network = randomised(Own()).train()
    given = NetworkInMemory(network, OWN)
    manifest = compile_artifact(CompileRequest(Workload(given, Size(40, 24), load_target("native"), batch=2)), tmp_path / "a")
    assert (manifest.network, manifest.classes, manifest.palette) == (OWN.network, OWN.classes, OWN.palette)
    assert (manifest.input.mean, manifest.input.std) == (OWN.mean, OWN.std)
    assert (manifest.weights, manifest.hashes.weights) == ("", given.sha256)
    x = torch.randn((2, 3, 24, 40), generator=torch.Generator().manual_seed(0))
    with Segmenter.load(tmp_path / "a", threads=1) as segmenter, torch.no_grad():
        expected = network.eval()(x).numpy()
        logits = segmenter.forward(x.numpy())
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert 0.1 < (expected.argmax(1) == 0).mean() < 0.9, "both classes are there"


@pytest.mark.slow
def test_a_module_and_its_file_give_the_same_library(request_of, tiny: nn.Module, tmp_path: Path):
    compile_artifact(request_of(), tmp_path / "file")
    compile_artifact(request_of(weights=NetworkInMemory(tiny, INFO)), tmp_path / "module")
    assert sha256(tmp_path / "file" / LIBRARY_NAME) == sha256(tmp_path / "module" / LIBRARY_NAME)


@pytest.mark.parametrize(
    ("network", "returned"),
    [
        (nn.Conv2d(3, 2, 3, stride=2, padding=1), "1x2x8x12"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), "1x768"),
        (nn.MaxPool2d(1), "own names 2 classes, but its network has 3 outputs; name one for each"),
    ],
)
def test_modules_that_return_no_logits(network: nn.Module, returned: str, tmp_path: Path):
    with pytest.raises(UserError, match=returned):
        compile_artifact(CompileRequest(Workload(NetworkInMemory(network, OWN), SIZE, load_target("native"))), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_int8_of_a_module_needs_a_file_of_ranges(tiny: nn.Module, tmp_path: Path):
    request = CompileRequest(Workload(NetworkInMemory(tiny, OWN), SIZE, load_target("rpi5"), dtype="int8"))
    with pytest.raises(UserError, match="own is in memory, so no calibration is beside it"):
        compile_artifact(request, tmp_path / "a")


def test_sizes_that_a_network_of_the_table_cannot_take(tmp_path: Path):
    info = WeightsInfo("segnet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1))
    with torch.device("meta"):
        request = CompileRequest(Workload(NetworkInMemory(SegNet(2), info), Size(64, 24), load_target("native")))
    with pytest.raises(UserError, match="64x24 is too small for SegNet; take 32x32 or more"):
        compile_artifact(request, tmp_path / "a")


def test_metadata_that_do_not_fit_the_network(request_of, tiny: nn.Module, tmp_path: Path):
    """Three names for two channels: the labels would mean something else."""
    weights = tmp_path / "three.safetensors"
    save_network(tiny, WeightsInfo("tiny", ("a", "b", "c"), ((0, 0, 0),) * 3, (0, 0, 0), (1, 1, 1)), weights)
    with pytest.raises(UserError, match="names 3 classes, but its network has 2 outputs"):
        compile_artifact(request_of(weights=weights), tmp_path / "artifact")
