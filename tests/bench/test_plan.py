from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from enet_tvm.bench.plan import parse_streams, plan_cases
from enet_tvm.bench.runners import RUNNERS
from enet_tvm.errors import UserError
from enet_tvm.machine import usable_cpus
from enet_tvm.size import Size
from enet_tvm.targets import load_target


def test_nothing_said(tmp_path):
    plan = plan_cases(tmp_path)
    (case,) = plan.cases
    here = ("tvm", "torch", "torch-channels-last", "torch-compile", "onnxruntime", "openvino")
    assert plan.runners == (*here, "ncnn", "mnn", "litert", "executorch")
    assert set(plan.runners) < set(RUNNERS)
    assert (case.size, case.threads, case.target.name) == (Size(640, 360), len(usable_cpus()), "native")
    assert case.weights.is_absolute()
    assert case.weights.name == "enet-camvid.safetensors"
    assert plan.streams == (1,)
    assert case.data is None
    assert plan_cases(tmp_path, data="camvid").cases[0].data == "camvid"


def test_what_is_compiled_for_a_gpu_has_peers_there(compiled_enet, tmp_path):
    assert plan_cases(tmp_path, "h100").runners == (
        "tvm",
        "torch-cuda",
        "torch-cuda-compile",
        "onnxruntime-cuda",
        "tensorrt",
    )
    assert plan_cases(tmp_path, "h100", runners=["torch"]).runners == ("torch",)
    assert plan_cases(tmp_path, "h100", tracker="localhost:9190").runners == ("tvm-rpc",)
    artifact = tmp_path / "artifact"
    shutil.copytree(compiled_enet.directory, artifact)
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["target"] |= {"name": "a-file-that-is-gone", "device": "cuda"}
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    assert plan_cases(tmp_path, artifact=artifact).runners == (
        "tvm",
        "torch-cuda",
        "torch-cuda-compile",
        "onnxruntime-cuda",
        "tensorrt",
    )


def test_every_size_with_every_number_of_threads(tmp_path):
    plan = plan_cases(tmp_path, sizes=["64x48", "96x64"], threads=[1, 3], runners=["torch"], streams="4,1,2,1")
    assert [(str(each.size), each.threads) for each in plan.cases] == [
        ("64x48", 1),
        ("64x48", 3),
        ("96x64", 1),
        ("96x64", 3),
    ]
    assert plan.streams == (1, 2, 4)


def test_a_tracker_means_the_device(tmp_path):
    plan = plan_cases(tmp_path, "rpi4", tracker="localhost:9190", key="desk")
    spec = load_target("rpi4")
    (case,) = plan.cases
    assert plan.runners == ("tvm-rpc",)
    assert (case.tracker, case.key, case.threads) == ("localhost:9190", "desk", spec.cores)
    assert case.size == spec.size or spec.size is None


def test_an_artifact_brings_its_size_and_weights(compiled_enet, tmp_path):
    (case,) = plan_cases(tmp_path, artifact=compiled_enet.directory).cases
    assert case.size == Size(64, 48)
    assert case.weights == compiled_enet.weights
    assert case.artifact == compiled_enet.directory
    assert case.target.name == "native"


def test_an_artifact_for_a_board_brings_the_boards_cores(compiled_enet, tmp_path):
    board = tmp_path / "artifact"
    shutil.copytree(compiled_enet.directory, board)
    manifest = json.loads((board / "manifest.json").read_text())
    for name, cores in (("graviton3", load_target("graviton3").cores), ("a-file-that-is-gone", len(usable_cpus()))):
        manifest["target"]["name"] = name
        (board / "manifest.json").write_text(json.dumps(manifest))
        (case,) = plan_cases(tmp_path, artifact=board, tracker="localhost:9190").cases
        assert (case.threads, case.size) == (cores, Size(64, 48))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"runners": ["torch", "tensorflow"]}, "there is no runner 'tensorflow'"),
        ({"runners": ["tvm-rpc"]}, "give --tracker HOST:PORT"),
        ({"sizes": ["65x48"]}, "divisible by 8"),
        ({"target": "abacus"}, "abacus"),
        ({"weights": Path("missing.safetensors")}, "missing.safetensors"),
        ({"streams": "1,many"}, "no list of numbers of streams"),
    ],
)
def test_bad_input(tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_cases(tmp_path, **arguments)


@pytest.mark.parametrize(("text", "streams"), [("0", ()), ("1", (1,)), (" 2, 1 ", (1, 2)), ("64", (64,))])
def test_streams(text, streams):
    assert parse_streams(text) == streams


@pytest.mark.parametrize("text", ["", "0,1", "-1", "1.5", "65", "1,,2", "²"])
def test_no_streams(text):
    with pytest.raises(UserError, match="no list of numbers of streams"):
        parse_streams(text)
