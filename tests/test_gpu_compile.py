"""`compile` for Jetson TX1, on a machine without a GPU: what the board would get, whole."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from compiled import shipped_enet
from torch import nn
from typer.testing import CliRunner

from enet_tvm.artifact import read_manifest
from enet_tvm.cli.main import build_app
from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler import pipeline
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.cuda import incremental
from enet_tvm.compiler.cuda.device_code import device_code
from enet_tvm.compiler.cuda.ptx import ptx_arch, ptx_entries, ptx_version
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec, load_target


@pytest.fixture
def cuda(tools: CudaTools) -> None:
    pytest.importorskip("ziglang")


def compile_for(spec: TargetSpec, out: Path) -> Path:
    compile_artifact(CompileRequest(Workload(DEFAULT_WEIGHTS, Size(64, 48), spec), command="pytest", untuned=True), out)
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("cuda")
def test_what_the_board_gets(tmp_path: Path):
    first = shipped_enet("jetson-tx1")
    manifest = read_manifest(first)
    assert (manifest.target.architecture, manifest.target.device) == ("aarch64", "cuda")
    assert manifest.kernel_count <= 95
    report = manifest.library_report
    assert report is not None
    assert report.machine == "aarch64"
    assert report.device is not None
    assert (report.device.arch, report.device.ptx) == ("sm_53", "6.5")
    assert {k.name for k in report.device.kernels} == {f"{launch.name}_kernel" for launch in manifest.kernels}
    assert max(k.registers for k in report.device.kernels) <= 128
    assert not any(k.spill_bytes or k.stack_bytes for k in report.device.kernels)
    code = device_code(first / manifest.library)
    assert (ptx_arch(code), ptx_version(code)) == ("sm_53", "6.5")
    assert len(ptx_entries(code)) == len(report.device.kernels)

    # What it says of itself to people.
    result = CliRunner().invoke(build_app(), ["info", "--compiled", str(first), "--json", str(tmp_path / "info.json")])
    assert result.exit_code == 0
    assert "registers" in result.output
    assert "device code: PTX 6.5 for sm_53" in result.output
    assert json.loads((tmp_path / "info.json").read_text())["device"]["arch"] == "sm_53"


@pytest.mark.slow
@pytest.mark.usefixtures("cuda")
def test_the_same_bytes_again(randomised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the same PTX: NVRTC itself does not always make the same of the same source, which therefore has to be the same."""
    network = randomised(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16), nn.Conv2d(16, 11, 3, padding=1)))
    monkeypatch.setattr(compiler, "load_network", lambda path: network)
    monkeypatch.setattr(incremental, "compile_to_ptx", functools.cache(incremental.compile_to_ptx))
    libraries = []
    for name in ("first", "second"):
        artifact = compile_for(load_target("jetson-tx1"), tmp_path / name)
        libraries.append((artifact / read_manifest(artifact).library).read_bytes())
    assert libraries[0] == libraries[1]
    compiled = incremental.compile_to_ptx.cache_info()
    assert compiled.hits == compiled.misses > 0


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Said at once, and nothing is left behind."""

    def missing() -> None:
        raise UserError("the CUDA compiler is not installed; run: pip install 'enet-tvm[cuda]'")

    monkeypatch.setattr(compiler, "find_cuda_tools", missing)
    with pytest.raises(UserError, match="pip install"):
        compile_for(load_target("jetson-tx1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("cuda")
def test_a_gpu_that_no_kernel_fits(randomised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = randomised(nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 11, 1)))
    monkeypatch.setattr(compiler, "load_network", lambda path: network)
    monkeypatch.setattr(pipeline, "ATTEMPTS", 1)
    spec = load_target("jetson-tx1")
    assert spec.gpu is not None
    tight = spec.model_copy(update={"gpu": spec.gpu.model_copy(update={"max_registers": 20})})
    with pytest.raises(UserError, match=r"would not run there: .* per thread, and 20 are allowed; correct the section"):
        compile_for(tight, tmp_path / "out")
    assert not (tmp_path / "out").exists()
