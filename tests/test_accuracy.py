"""`benchmarks/accuracy.py`: what data types cost in accuracy, here and on an emulated processor, and the table of it."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from rides import FRAMES, write_rides
from scripts import load_script, run_script

from enet_tvm.agreement import NOISE
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.networks.weights import DEFAULT_WEIGHTS

script = load_script(Path(__file__).parents[1] / "benchmarks/accuracy.py")
README = "Before.\n\n| " + " | ".join(script.HEADINGS) + " |\n|---|\n| old |\n\nAfter.\n"
ORIGIN = {"weights": "a", "size": "480x360"}


def row(target: str = "rpi5", dtype: str = "int8", **others: Any) -> dict[str, Any]:
    figures = {
        "pictures": 3,
        "pixels": 10_000,
        "differing": 25,
        "miou": 0.5123,
        "miou_reference": 0.5,
        "library_bytes": 1_260_000,
    }
    return {"target": target, "dtype": dtype, "processor": "emulated", **figures, **others}


def run(tmp_path: Path, *words: object) -> Any:
    (tmp_path / "README.md").write_text(README)
    return run_script(script, *words, "--figures", tmp_path / "accuracy.json", "--readme", tmp_path / "README.md")


def test_the_table():
    said = script.table({"rows": [row(), row("native", "float32", processor="a processor", differing=2345)]}).splitlines()
    assert said[2] == "| int8 | `rpi5`, emulated | 3 | all but 25 of 10,000 | 0.5123 | 0.5000 | 1.3 MB |"
    assert said[3] == "| float32 | `native`, a processor | 3 | 76.55 % | 0.5123 | 0.5000 | 1.3 MB |"


def test_rows_of_the_same_weights_stay():
    kept = script.merged({}, ORIGIN, row(miou=0.1))
    kept = script.merged(kept, ORIGIN, row("native", "float32"))
    kept = script.merged(kept, ORIGIN, row("graviton3"))
    kept = script.merged(kept, ORIGIN, row(miou=0.2))
    assert [(one["target"], one["miou"]) for one in kept["rows"]] == [
        ("native", 0.5123),
        ("graviton3", 0.5123),
        ("rpi5", 0.2),
    ]
    assert script.merged(kept, {**ORIGIN, "weights": "b"}, row())["rows"] == [row()]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rpi5", "names no data type"),
        ("rpi5:float64", "names no data type"),
        ("nothing:int8", "nothing"),
        ("h100:float32", "neither here nor by the emulator"),
        ("sapphire-rapids:float16", "neither here nor by the emulator"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(text: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        script.parse_case(text)


def test_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ENET_TVM_CAMVID", raising=False)
    result = run(tmp_path, "rpi5:int8")
    assert result.exit_code == 2
    assert "give --data" in result.stderr
    assert not (tmp_path / "accuracy.json").exists()


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.timeout(600)
@pytest.mark.skipif(platform.machine() == "aarch64", reason="nothing is emulated on 64-bit ARM")
def test_here_and_on_an_emulated_processor(emulated_device: Any, tmp_path: Path):
    result = run(tmp_path, "native:float32", "rpi5:float16", "--size", "64x48", "--data", write_rides(tmp_path / "rides"))
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "accuracy.json").read_text())
    assert kept["weights"] == sha256(DEFAULT_WEIGHTS)
    here, there = kept["rows"]
    assert (here["target"], here["dtype"], there["target"], there["dtype"]) == ("native", "float32", "rpi5", "float16")
    assert (there["processor"], here["processor"] == "emulated") == ("emulated", False)
    for one in kept["rows"]:
        assert one["pictures"] == len(FRAMES["val"])
        assert one["pixels"] == one["pictures"] * 64 * 48
        assert 1 - one["differing"] / one["pixels"] >= NOISE[one["dtype"]]
    assert here["miou_reference"] == there["miou_reference"]
    assert script.table(kept) in (tmp_path / "README.md").read_text()
    assert (tmp_path / "README.md").read_text().endswith("\n\nAfter.\n")
