from __future__ import annotations

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from enet_tvm.bench.machine.nvml import GpuUnknownError
from enet_tvm.bench.measure.profile import KernelTime, Profile, profile
from enet_tvm.bench.measure.roofline import PROMISED, Roofline
from enet_tvm.cli.main import build_app
from enet_tvm.runtime import Segmenter


def test_kernels_are_those_of_the_manifest(compiled_enet):
    with Segmenter.load(compiled_enet.directory, threads=1) as segmenter:
        result = profile(segmenter, passes=3)
        assert [kernel.name for kernel in result.kernels] == [kernel.name for kernel in segmenter.manifest.kernels]
    assert all(kernel.seconds > 0 and kernel.bytes > 0 for kernel in result.kernels)
    assert result.threads == 1


@pytest.mark.slow
def test_operations_are_those_of_the_network(compiled_enet):
    from enet_tvm.networks import load_network
    from enet_tvm.networks.summary import summarise
    from enet_tvm.size import Size

    expected = summarise(load_network(compiled_enet.weights), Size(64, 48)).total.flops
    with Segmenter.load(compiled_enet.directory, threads=1) as segmenter:
        assert sum(kernel.flops for kernel in segmenter.manifest.kernels) == expected


def test_the_slower_of_arithmetic_and_memory_is_the_limit():
    roofline = Roofline(flops_per_second=100.0, bytes_per_second=10.0)
    assert roofline.seconds(1000, 10) == pytest.approx(10.0)
    assert roofline.seconds(10, 1000) == pytest.approx(100.0)
    kernel = KernelTime("k", (), 1000, 10, 20.0)
    assert Profile((kernel, kernel), 45.0, 1, roofline).share_of_roofline(kernel) == pytest.approx(0.5)
    assert Profile((kernel, kernel), 45.0, 1, roofline).total == pytest.approx(40.0)


@pytest.mark.usefixtures("processor_as_gpu")
@pytest.mark.parametrize(("name", "gflops"), [("h100", 51218.0), ("a board of my own", None)])
def test_limits_of_a_gpu_are_not_the_processors(tiny_artifact, tmp_path, monkeypatch, name, gflops):
    """Without PyTorch's CUDA and without NVML they are what the target promises, and of another's target nothing is known."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("enet_tvm.bench.measure.profile.open_gpu", unknown_gpu)
    for_gpu = tmp_path / "artifact"
    shutil.copytree(tiny_artifact.directory, for_gpu)
    content = json.loads((for_gpu / "manifest.json").read_text())
    content["target"] |= {"device": "cuda", "name": name}
    (for_gpu / "manifest.json").write_text(json.dumps(content))
    with Segmenter.load(for_gpu, threads=1) as segmenter:
        result = profile(segmenter, passes=2)
    assert (result.roofline and result.roofline.flops_per_second) == (gflops and 1e9 * gflops)
    assert result.source == PROMISED
    shares = [result.share_of_roofline(kernel) for kernel in result.kernels]
    assert all((share is None) == (gflops is None) for share in shares)
    assert (result.to_dict()["roofline"] or {}).get("source") == (PROMISED if gflops else None)
    printed = CliRunner().invoke(build_app(), ["profile", str(for_gpu), "--passes", "2", "--threads", "1"])
    assert printed.exit_code == 0, printed.output
    words = "takes 0.00 ms (by the target's specification)" if gflops else "is not known: neither its driver nor the target"
    assert words in printed.output
    assert "ms on the GPU" in printed.output


def unknown_gpu():
    raise GpuUnknownError("there is none")


@pytest.mark.slow
def test_verb(compiled_enet, tmp_path):
    path = tmp_path / "profile.json"
    result = CliRunner().invoke(
        build_app(), ["profile", str(compiled_enet.directory), "--passes", "2", "--threads", "1", "--json", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert "fullconv" in result.output
    figures = json.loads(path.read_text())
    assert len(figures["kernels"]) == 91
    assert figures["sum_ms"] == pytest.approx(sum(1e3 * kernel["seconds"] for kernel in figures["kernels"]))
