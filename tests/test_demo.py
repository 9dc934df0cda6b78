from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from enet_tvm import demo
from enet_tvm.artifact import read_manifest


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        demo.main()
    return int(caught.value.code or 0)


def test_main_job(compiled_enet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (90, 60), (90, 120, 150)).save(picture)
    options = ["--weights", compiled_enet.weights, "--size", "64x48", "--seconds", "0.1", "--picture", picture]
    assert run(monkeypatch, *options, "--output", tmp_path / "out") == 0

    with Image.open(tmp_path / "out/overlay.png") as overlay:
        assert overlay.size == (180, 60)
    figures = json.loads((tmp_path / "out/verify.json").read_text())
    assert figures["label_agreement"] >= 0.9999
    assert figures["miou_diff"] <= 1e-4
    assert 0 <= figures["max_abs_logit_diff"] < 1e-3
    assert read_manifest(tmp_path / "out/artifact").input.shape == (1, 3, 48, 64)
    printed = capsys.readouterr().out
    assert "PyTorch eager" in printed
    assert "compiled" in printed


def test_bad_picture(compiled_enet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    options = ["--weights", compiled_enet.weights, "--picture", tmp_path / "none.png", "--output", tmp_path / "out"]
    assert run(monkeypatch, *options) == 2
    assert capsys.readouterr().err.startswith("error: there is no file")
    assert not (tmp_path / "out").exists()
