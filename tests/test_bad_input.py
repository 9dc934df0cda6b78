"""Every bad input ends in one sentence on standard error, exit code 2 and nothing half-written: one table holds them all."""

from __future__ import annotations

import dataclasses
import json
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enet_tvm.artifact import LIBRARY_NAME, MANIFEST_NAME
from enet_tvm.cli.main import main
from enet_tvm.data.classes import CAMVID
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, save_network
from enet_tvm.training.checkpoint import Checkpoint, save_checkpoint

INFO = WeightsInfo("enet", CAMVID.names, CAMVID.palette, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
TWO = dataclasses.replace(INFO, classes=("a", "b"), palette=((0, 0, 0), (1, 1, 1)))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is costly to make, made once."""
    shelf = tmp_path_factory.mktemp("shelf")
    save_network(ENet(11), INFO, shelf / "good.safetensors")
    save_network(ENet(2), TWO, shelf / "two-classes.safetensors")
    save_network(ENet(2), INFO, shelf / "wrong-count.safetensors")
    save_network(ENet(11), dataclasses.replace(INFO, network="segnet"), shelf / "segnet.safetensors")
    other = ENet(11)
    other.bottleneck4_1 = None  # type: ignore[assignment]
    save_network(other, INFO, shelf / "other-layers.safetensors")
    broken = ENet(11)
    torch.nn.init.constant_(broken.bottleneck2_0.project[0].weight, torch.nan)
    save_network(broken, INFO, shelf / "nan.safetensors")
    torch.save(ENet(11).state_dict(), shelf / "foreign.pt")
    torch.save(ENet(11), shelf / "module.pt")
    content = (shelf / "good.safetensors").read_bytes()
    (shelf / "no-std.safetensors").write_bytes(content.replace(b"[0.2, 0.2, 0.2]", b"[0.2, 0.0, 0.2]"))
    (shelf / "truncated.safetensors").write_bytes((shelf / "good.safetensors").read_bytes()[:5000])
    (shelf / "text.safetensors").write_text("not weights at all")
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(shelf / "good.png")
    (shelf / "truncated.png").write_bytes((shelf / "good.png").read_bytes()[:60])
    (shelf / "text.jpg").write_text("not a picture at all")
    (shelf / "file").write_text("in the way")
    (shelf / "occupied").mkdir()
    (shelf / "occupied" / "thesis.tex").write_text("years of work")
    (shelf / "empty").mkdir()
    (shelf / "broken.toml").write_text("epochs = many")
    (shelf / "no-target.toml").write_text('mcpu = "x86-64-v3"')
    return shelf


@pytest.fixture
def world(shelf: Path, tiny_artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, made the current one, with one of everything, good and bad, which a case may damage."""
    root = tmp_path / "world"
    shutil.copytree(shelf, root)
    shutil.copytree(tiny_artifact.directory, root / "artifact")
    monkeypatch.chdir(root)
    return root


def edit_manifest(**changes: object) -> Callable[[], None]:
    """Return what replaces values of the artifact's manifest, named as in ``versions__apache_tvm``; None removes."""

    def edit() -> None:
        path = Path("artifact", MANIFEST_NAME)
        content = json.loads(path.read_text())
        for name, value in changes.items():
            *parents, key = name.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            if value is None:
                del place[key]
            else:
                place[key] = value
        path.write_text(json.dumps(content))

    return edit


def edit_library(change: Callable[[bytes], bytes]) -> Callable[[], None]:
    def edit() -> None:
        path = Path("artifact", LIBRARY_NAME)
        path.write_bytes(change(path.read_bytes()))

    return edit


@dataclass(frozen=True)
class Case:
    """A command that must be refused, words that the sentence must hold, and what is spoilt beforehand."""

    command: str
    words: str
    damage: Callable[[], None] = lambda: None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.command} ({self.note})" if self.note else self.command


def two_pictures() -> None:
    """The labels of the one would be called as the other."""
    for name in ("a.jpg", "a_labels.png"):
        shutil.copy("good.png", name)


BAD_WEIGHTS = {
    "missing.safetensors": "there is no file",
    "text.safetensors": "not a readable safetensors file",
    "truncated.safetensors": "not a readable safetensors file",
    "wrong-count.safetensors": "has shape",
    "segnet.safetensors": "segnet",
    "other-layers.safetensors": "bottleneck4_1",
    "nan.safetensors": "NaN or infinite in 'bottleneck2_0.project.0.weight'",
    "no-std.safetensors": "std 1 is 0.0",
    "foreign.pt": "import it first: enet-tvm import-weights foreign.pt --classes 11 -o foreign.safetensors",
    "module.pt": "torch.save(model.state_dict(), 'weights.pt')",
}
BAD_SIZES = {"500x360": "try 496x360", "0x8": "divisible by 8", "big": "WIDTHxHEIGHT", "-8x8": "WIDTHxHEIGHT"}
READS_WEIGHTS = ("info", "evaluate --data synthetic", "compile --target x86-64-v3 -o out", "export -o out.onnx")
TAKES_SIZE = (
    "info --network enet --classes 2",
    "compile --target x86-64-v3 -o out",
    "export --weights good.safetensors -o o.onnx",
)
RUN = "run artifact good.png -o out"

CASES = [
    Case("segment", "No such command"),
    Case("info --colour", "No such option"),
    *(Case(f"{command} --weights {file}", words) for command in READS_WEIGHTS for file, words in BAD_WEIGHTS.items()),
    *(Case(f"{command} --size={size}", words) for command in TAKES_SIZE for size, words in BAD_SIZES.items()),
    Case("info --network unet --classes 2", "no network 'unet'"),
    Case("info --compiled empty", "is not an artifact"),
    Case("info --network enet --classes 2 --json file/figures.json", "cannot write"),
    Case("evaluate --data synthetic --weights two-classes.safetensors", "2 classes"),
    Case("evaluate --data nowhere --weights good.safetensors", "no data set"),
    Case("evaluate --data empty --weights good.safetensors", "cannot read"),
    Case("evaluate --data synthetic --split best --weights good.safetensors", "no split 'best'"),
    Case("evaluate --data empty --dataset kitti --weights good.safetensors", "no data set 'kitti'"),
    Case("data stats --data nowhere", "no data set directory"),
    Case("data stats --data empty", "cannot read"),
    Case("data stats --data synthetic --split val --json file/figures.json", "cannot write"),
    Case("data check --data empty --dataset kitti", "no data set 'kitti'"),
    Case("train --data empty --dataset cityscapes --out runs", "no folder empty/leftImg8bit/train"),
    Case("train --data synthetic --out runs --recipe quick", "recipe"),
    Case("train --data synthetic --out runs --recipe broken.toml", "broken.toml"),
    Case("train --data nowhere --out runs", "no data set"),
    *(
        Case(f"train --data synthetic --out runs --start {file}", BAD_WEIGHTS[file])
        for file in ("missing.safetensors", "nan.safetensors", "module.pt")
    ),
    Case("import-weights module.pt -o out.safetensors --classes 11", "whole pickled module"),
    Case("import-weights nan.safetensors -o out.safetensors", "NaN or infinite"),
    Case("import-weights foreign.pt -o out.safetensors", "--classes 11"),
    Case("import-weights foreign.pt -o file/out.safetensors --classes 11", "cannot write"),
    Case("train --data synthetic --out file/runs", "cannot write"),
    Case("compile --weights good.safetensors -o out --target pentium", "no target 'pentium'"),
    Case("compile --weights good.safetensors -o out --target nowhere.toml", "no target 'nowhere.toml'"),
    Case("compile --weights good.safetensors -o out --target broken.toml", "not valid TOML"),
    Case("compile --weights good.safetensors -o out --target no-target.toml", "no-target.toml: description"),
    Case("targets show pentium", "no target 'pentium'"),
    Case("targets check nowhere.toml", "no target 'nowhere.toml'"),
    Case("targets show no-target.toml", "no-target.toml: description is missing; it must be"),
    Case("targets new native --like rpi4", "choose another name"),
    Case("targets new ../pi --like rpi4", "name is '../pi'"),
    Case("targets new pi --mcpu cortex-a72", "description is missing"),
    Case("targets new pi --like rpi4 --mcpu cortex-a999", "LLVM knows no processor 'cortex-a999'"),
    Case("targets new pi --like rpi4 --size 641x360", "size is '641x360'"),
    Case("targets new pi --like rpi4", "cannot write", lambda: Path("targets").touch(), "a file called targets"),
    Case("compile --weights good.safetensors -o file", "is a file"),
    Case("compile --weights good.safetensors -o file/out", "cannot write"),
    Case("compile --weights good.safetensors -o /proc/out", "cannot write"),
    Case("compile --weights good.safetensors -o occupied", "holds something else"),
    Case("export --weights good.safetensors -o file/enet.onnx", "cannot write"),
    Case("export --weights good.safetensors -o enet.onnx --opset 3", "opset"),
    Case("run nowhere good.png -o out", "no directory"),
    Case("run occupied good.png -o out", "is not an artifact"),
    Case(RUN, "truncated or edited", edit_library(lambda library: library[: len(library) // 2]), "truncated library"),
    Case(RUN, "truncated or edited", edit_library(lambda library: library + b"x"), "longer library"),
    Case(RUN, "truncated or edited", edit_library(lambda library: library[:-1] + bytes([library[-1] ^ 1])), "one bit"),
    Case(RUN, "is missing", lambda: Path("artifact", LIBRARY_NAME).unlink(), "no library"),
    Case(RUN, "not valid JSON", lambda: Path("artifact", MANIFEST_NAME).write_text("{"), "half a manifest"),
    Case(RUN, "schema version 99", edit_manifest(schema_version=99), "manifest of another schema"),
    Case(RUN, "not a complete manifest", edit_manifest(classes=None), "no classes"),
    Case(RUN, "apache-tvm 0.20.0", edit_manifest(versions__apache_tvm="0.20.0"), "another TVM"),
    Case(RUN, "this processor lacks sse17", edit_manifest(target__cpu_features=["sse17"]), "another processor"),
    Case("run artifact nothing.png -o out", "no file or folder"),
    Case("run artifact empty -o out", "holds no pictures"),
    Case("run artifact good.png -o file/out", "cannot write"),
    Case("run artifact good.png -o /proc/out", "cannot write"),
    Case("run artifact good.png -o out --threads 0", "threads"),
    Case("run artifact good.png -o .", "written over the picture good.png"),
    Case("run artifact good.png empty/../good.png -o empty/..", "written over the picture"),
    Case("run artifact good.png -o back", "written over the picture", lambda: Path("back").symlink_to("."), "a link"),
    Case("run artifact a.jpg a_labels.png -o . --labels", "written over the picture a_labels.png", two_pictures, "labels"),
    Case("run artifact good.png -o ''", "the value after -o is empty"),
    Case("run artifact '' -o out", "the value after artifact is empty"),
    Case("info --network enet --classes 2 --json=", "the value of --json is empty"),
    Case("compile --weights good.safetensors --target ' ' -o out", "the value after --target is empty"),
    Case("run artifact good.png -o out --opacity 2", "opacity 2"),
    Case("verify nowhere", "no directory"),
    Case("verify artifact", "truncated or edited", edit_library(lambda library: library[1:]), "edited library"),
    Case("verify artifact --synthetic 1 --weights two-classes.safetensors", "was not compiled from"),
    Case("verify artifact --synthetic 1 --weights missing.safetensors", "there is no file"),
    Case("verify artifact --synthetic 1 --data synthetic", "only one of"),
    Case("verify artifact --data synthetic", "4 classes"),
    Case("verify artifact --images empty", "holds no pictures"),
]


def tree(root: Path) -> dict[str, bytes | None]:
    """Return every file's content and every directory below a place."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


def refused(command: str, capture: pytest.CaptureFixture[str]) -> list[str]:
    """Run the command line, which must exit with code 2, and return the lines of its standard error."""
    capture.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(command))
    lines = capture.readouterr().err.splitlines()
    assert caught.value.code == 2, lines
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_refused_in_one_sentence(case: Case, world: Path, capfd: pytest.CaptureFixture[str]):
    case.damage()
    before = tree(world)
    lines = refused(case.command, capfd)
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert case.words in lines[0]
    assert tree(world) == before


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("picture", ["text.jpg", "truncated.png"])
def test_unreadable_picture(picture: str, world: Path, capfd: pytest.CaptureFixture[str]):
    """One sentence about it, and the readable pictures beside it are segmented all the same."""
    lines = refused(f"run artifact good.png {picture} -o out", capfd)
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert picture in errors[0]
    assert [path.name for path in Path("out").iterdir()] == ["good.png"]


NO_ROOM = ["run artifact good.png -o empty", "info --network enet --classes 2 --json figures.json"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("command", NO_ROOM)
def test_no_room(command: str, world: Path, capsys: pytest.CaptureFixture[str]):
    """A limit on the size of files fails a write half-way, as a full disk does; what is printed must not go to a file then."""
    before = tree(world)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        lines = refused(command, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(lines) == 1, lines
    assert "cannot write" in lines[0]
    assert tree(world) == before


def test_no_room_for_weights_and_checkpoints(tmp_path: Path):
    """Both are written by other libraries, whose own errors are no sentences."""
    checkpoint = Checkpoint("{}", ["a", "b"], 1, ENet(2).state_dict(), {}, {}, 0, 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            save_network(ENet(2), TWO, tmp_path / "weights.safetensors")
        with pytest.raises(UserError, match="cannot write"):
            save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_the_command_itself(world: Path):
    """Once through the installed entry point."""
    command = [str(Path(sys.executable).with_name("enet-tvm")), *["run", "nowhere", "good.png", "-o", "out"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: there is no directory")
