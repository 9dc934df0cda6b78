"""The runtimes of boards, which all run the portable form: their labels beside PyTorch's, and what is said of a missing one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import DecodeError
from shared import made_once

from enet_tvm.agreement import NOISE, PICTURES
from enet_tvm.bench.comparison import compare
from enet_tvm.bench.report.tables import tables
from enet_tvm.bench.runners import Case, RunnerMissingError, open_runner
from enet_tvm.bench.runners.portable_form import exported
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.machine import cpu_features
from enet_tvm.networks import load_network, read_info
from enet_tvm.networks.portable import portable

PACKAGES = {
    **{"ncnn": "ncnn", "ncnn-bfloat16": "ncnn", "mnn": "MNN", "mnn-int8": "MNN"},
    **{"litert": "ai_edge_litert", "litert-float16": "ai_edge_litert", "executorch": "executorch"},
}
"""Each runner and the package that it imports."""
QUICK = ("ncnn", "mnn", "litert")


def require(name: str) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed; pip install 'enet-tvm[{name.partition('-')[0]}]'")
    if name == "litert-float16" and not cpu_features() & {"avx512_fp16", "asimdhp"}:
        pytest.skip("the processor has no arithmetic of float16")


def hide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a runner's package be one that cannot be imported, also where it was."""
    package = PACKAGES[name]
    for module in (package, *(each for each in sys.modules if each.startswith(f"{package}."))):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def with_file(case) -> Case:
    """A case whose ONNX file, of the whole network, is made once a run."""
    from enet_tvm.compiler.frontend.onnx_export import export_onnx

    def write(path: Path) -> None:
        export_onnx(load_network(case.weights), read_info(case.weights), case.size, path, form="portable")

    (case.directory / f"{case.size}-portable.onnx").symlink_to(made_once("enet-portable.onnx", write))
    return case


def picture(case: Case) -> np.ndarray:
    """A drawn street, normalised."""
    info = read_info(case.weights)
    pixels = np.asarray(SyntheticStreet(case.size, 1)[0][0], np.float32) / 255
    x = (pixels - np.array(info.mean, np.float32)) / np.array(info.std, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def same_labels(logits: np.ndarray, expected: torch.Tensor) -> float:
    assert logits.shape == expected.shape
    return float((logits.argmax(1) == expected.numpy().argmax(1)).mean())


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", QUICK)
def test_a_small_network(name, case, small_network):
    require(name)
    with open_runner(name, case) as runner:
        for seed in range(2):
            x = np.random.default_rng(seed).standard_normal(case.input_shape, np.float32)
            with torch.inference_mode():
                expected = small_network(torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-5)
        assert all(file.stat().st_size for file in runner.artifact_files())


@pytest.mark.slow
def test_mnn_in_8_bits_rounds_what_a_convolution_is_given(case, monkeypatch):
    """Weights of 0 and 1 are exact in 8 bits: what differs is that inputs are rounded, which they are if its setting works."""
    require("mnn-int8")
    network = torch.nn.Conv2d(3, 3, 1, bias=False).eval()
    torch.nn.init.dirac_(network.weight)
    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: network)
    x = np.random.default_rng(0).standard_normal(case.input_shape, np.float32)
    with open_runner("mnn-int8", case) as runner:
        assert runner.precision == "int8"
        difference = np.abs(runner.forward(x) - x).max() / np.abs(x).max()
        assert 1e-4 < difference < 0.01  # half of a step of 254
    with open_runner("mnn", case) as runner:
        np.testing.assert_allclose(runner.forward(x), x, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_form_for_float16_has_no_number_beyond_its_range(case, monkeypatch):
    """What float32 has in the place of the largest is infinite in float16; both compute what the network does."""

    class Unpooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.unpool = torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled, indices = self.pool(x)
            return self.unpool(pooled + 1, indices)

    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: Unpooled())
    largest, x = {}, np.random.default_rng(0).permutation(3 * 48 * 64).reshape(case.input_shape).astype(np.float32)
    for precision in ("float32", "float16"):
        path = exported(case, precision)
        constants = [onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
        largest[precision] = max(float(np.abs(each).max()) for each in constants if each.dtype == np.float32)
        (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"picture": x})
        np.testing.assert_array_equal(found, Unpooled()(torch.from_numpy(x)).numpy())
        assert exported(case, precision) == path
    assert largest["float16"] < float(np.finfo(np.float16).max) < largest["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_labels(name, with_file):
    """On noise they are PyTorch's. A drawn street has even surfaces, whose windows have several maxima: those of the form."""
    require(name)
    network = load_network(with_file.weights)
    noise, street = np.random.default_rng(1).standard_normal(with_file.input_shape, np.float32), picture(with_file)
    with open_runner(name, with_file) as runner, torch.inference_mode():
        assert same_labels(runner.forward(noise), network(torch.from_numpy(noise))) >= NOISE[runner.precision]
        logits = runner.forward(street)
        # Of so small a street most pixels lie beside a border of classes, which bfloat16 moves.
        least = PICTURES["float32"] if runner.precision == "float32" else NOISE[runner.precision]
        assert same_labels(logits, portable(network)(torch.from_numpy(street))) >= least
        assert same_labels(logits, network(torch.from_numpy(street))) >= 0.98


@pytest.mark.parametrize("name", PACKAGES)
def test_one_that_is_missing_says_what_to_do(name, case, monkeypatch):
    hide(name, monkeypatch)
    extra = name.partition("-")[0]
    with pytest.raises(RunnerMissingError, match=rf"^\S+ is not installed; run: pip install 'enet-tvm\[{extra}\]'$"):
        open_runner(name, case)


def test_litert_where_float16_would_be_float32(case, monkeypatch):
    require("litert")
    monkeypatch.setattr("enet_tvm.bench.runners.litert.cpu_features", lambda: {"avx512f"})
    with pytest.raises(RunnerMissingError, match="no arithmetic of float16, so LiteRT computes in float32; leave it out"):
        open_runner("litert-float16", case)


def test_ncnn_without_its_converter(case, monkeypatch):
    require("ncnn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunnerMissingError, match="pnnx, which converts for ncnn, is not installed"):
        open_runner("ncnn", case)


@pytest.mark.parametrize("name", QUICK)
def test_a_file_that_is_no_network(name, case):
    require(name)
    (case.directory / f"{case.size}-portable.onnx").write_bytes(b"no network")
    with pytest.raises((RunnerMissingError, DecodeError)):
        open_runner(name, case)


@pytest.mark.slow
def test_rows_of_the_report(with_file, monkeypatch):
    """Those that are installed have a row with a time; one that is not has its sentence."""
    here = [name for name in QUICK if importlib.util.find_spec(PACKAGES[name])]
    hide("executorch", monkeypatch)
    result = compare([*here, "executorch"], with_file, seconds=0).to_dict()
    assert [entry["name"] for entry in result["entries"]] == here
    assert all(entry["latency"]["median_ms"] > 0 for entry in result["entries"])
    assert "enet-tvm[executorch]" in result["missing"]["executorch"]
    rows = [row[0] for row in tables(result)[0].rows]
    assert set(here) <= set(rows)
