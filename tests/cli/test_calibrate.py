from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from compiled import unoptimised_code
from PIL import Image
from torch import nn

from enet_tvm.cli.main import main
from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file
from enet_tvm.targets import load_target


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command, checks its exit code and returns what it printed, on one line."""

    def run(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        printed = capsys.readouterr()
        assert (caught.value.code or 0) == code, printed
        return " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        Image.linear_gradient("L").rotate(90 * number).convert("RGB").resize((64, 48)).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_from_pictures_to_int8(cli, tmp_path: Path, pictures: Path):
    """Calibrate, compile, verify: the file says what it is of, and other weights refuse it."""
    calibration = tmp_path / "c.json"
    cli("calibrate", "--images", str(pictures), "--pictures", "3", "--size", "64x48", "-o", str(calibration))
    content = json.loads(calibration.read_text())
    assert content["pictures"] == 3
    assert len(content["ranges"]) == 90
    assert "input" in content["ranges"]
    assert all(low <= 0 <= high for low, high in content["ranges"].values())
    known = dot_products(load_target("native").to_tvm())
    if not known & {"uint8", "int8"}:
        pytest.skip("this processor has no dot product of int8")
    artifact = tmp_path / "a"
    with unoptimised_code():
        cli("compile", "--dtype", "int8", "--calibration", str(calibration), "--size", "64x48", "-o", str(artifact))
    assert json.loads((artifact / "manifest.json").read_text())["dtype"] == "int8"
    assert "passed" in cli("verify", str(artifact), "--images", str(pictures), "--min-agreement", "0.8")
    labels, dtype = tmp_path / "labels", "bfloat16" if "bfloat16" in known else "float32"
    with unoptimised_code():
        cli("compile", "--dtype", dtype, "--output", "labels", "--size", "64x48", "-o", str(labels))
    assert "passed" in cli("verify", str(labels), "--images", str(pictures), "--min-agreement", "0.9")
    content["weights"] = "0" * 64
    calibration.write_text(json.dumps(content))
    result = cli(
        *("compile", "--dtype", "int8", "--calibration", str(calibration), "--size", "64x48", "-o", str(tmp_path / "b")), code=2
    )
    assert "is of other weights" in result
    assert not (tmp_path / "b").exists()


def test_bad_calibrations(cli, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    network = nn.Conv2d(3, 11, 1).eval()  # compiles in no time, should it come to that
    monkeypatch.setattr(compiler, "load_network", lambda path: network)
    out = ("-o", str(tmp_path / "a"), "--size", "64x48")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(find_file(DEFAULT_WEIGHTS).read_bytes())
    for arguments, sentence in [
        (("compile", "--dtype", "int8", "--calibration", str(broken), *out), "is not a calibration"),
        (("compile", "--dtype", "int8", "--weights", str(weights), *out), "there is no file"),
        (("compile", "--calibration", str(broken), *out), "needs no calibration"),
        (("calibrate", "-o", str(tmp_path / "c.json")), "give either --images"),
    ]:
        assert sentence in cli(*arguments, code=2)
