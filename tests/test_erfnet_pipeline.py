"""ERFNet through the whole pipeline: it says what PyTorch says, from PyTorch and from ONNX, in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compiled import unoptimised_code
from software_dots import SoftwareDots
from torch import nn

from enet_tvm.artifact import Manifest
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.frontend.onnx_export import export_onnx
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops.layout import DType
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.lower_kernels import LowerKernels
from enet_tvm.compiler.workload import Workload
from enet_tvm.networks import ERFNet, NetworkInMemory, WeightsInfo
from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size
from enet_tvm.targets import load_target

CLASSES = 7
INFO = WeightsInfo("erfnet", tuple("abcdefg"), tuple((i, i, i) for i in range(CLASSES)), (0.5,) * 3, (0.2,) * 3)
SIZE = Size(72, 40)


@pytest.fixture(scope="module")
def network(randomised) -> nn.Module:
    return randomised(ERFNet(CLASSES))


@pytest.fixture(scope="module")
def artifact(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed by a test."""
    directory = tmp_path_factory.mktemp("erfnet") / "artifact"
    with unoptimised_code():
        compile_artifact(CompileRequest(Workload(NetworkInMemory(network, INFO), SIZE, load_target("native"))), directory)
    return directory


def pictures(size: Size = SIZE) -> torch.Tensor:
    return torch.randn(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(1))


def reference(network: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network(x).numpy()


@pytest.mark.slow
def test_parity(network: nn.Module, artifact: Path):
    expected = reference(network, pictures())
    with Segmenter.load(artifact, threads=1) as segmenter:
        logits = segmenter.forward(pictures().numpy())
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    labels, wanted = logits.argmax(1), expected.argmax(1)
    assert (labels == wanted).mean() >= 0.9999
    assert np.bincount(wanted.ravel()).max() < 0.9 * wanted.size, "several classes are there, so labels tell something"


def launches(manifest: Manifest) -> list[tuple[str, ...]]:
    return [kernel.ops for kernel in manifest.kernels]


@pytest.mark.slow
def test_one_launch_a_convolution(artifact: Path):
    manifest = Segmenter.load(artifact, threads=1).manifest
    convolutions = [ops for ops in launches(manifest) if ops[0] in ("conv2d", "conv2d_transpose")]
    assert len(convolutions) == 3 + 17 * 4 + 3
    assert sum("add" in ops and "concat" not in ops for ops in convolutions) == 17, "shortcuts are added where they belong"
    assert sum("concat" in ops for ops in convolutions) == 3, "downsamplers never write the concatenation twice"


@pytest.mark.slow
def test_from_onnx_and_back(network: nn.Module, artifact: Path, tmp_path: Path):
    export_onnx(network, INFO, SIZE, tmp_path / "erfnet.onnx")
    request = CompileRequest(Workload(tmp_path / "erfnet.onnx", None, load_target("native")))
    with unoptimised_code():
        manifest = compile_artifact(request, tmp_path / "artifact")
    with Segmenter.load(artifact, threads=1) as segmenter:
        expected = segmenter.forward(pictures().numpy())
        assert launches(manifest) == launches(segmenter.manifest)
    with Segmenter.load(tmp_path / "artifact", threads=1) as segmenter:
        logits = segmenter.forward(pictures().numpy())
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "correlation"), [("bfloat16", 0.999), ("uint8", 0.98)])
def test_short_elements(network: nn.Module, run_relax, dtype: DType, correlation: float):
    """With what the dot products of AVX-512 compute, in software: so on any x86-64, and with AVX2's blocks."""
    x, ranges = pictures(), dict[str, tuple[float, float]]()

    def seen(name: str, values: torch.Tensor) -> None:
        ranges[name] = (min(0.0, float(values.min())), max(0.0, float(values.max())))

    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen(name, out))
        for name, module in network.named_modules()
        if name
    ]
    expected = reference(network, x)
    seen("input", x)
    for hook in hooks:
        hook.remove()
    templates = cpu_templates(VectorUnit(8, 16))
    lowering = LowerKernels(templates, ranges=ranges)
    fusing = [FoldBatchNorm(), FuseInitialBlock(templates), FuseConv2D(templates)]
    passes = [*fusing, BlockLayout(templates, dtype), lowering, SoftwareDots()]
    logits = run_relax(from_torch(network, tuple(x.shape)), x.numpy(), passes=passes)
    inner = [launch for launch in lowering.launches if launch.layers[-1] != "output23"]
    assert all(launch.layout.dtype == dtype for launch in inner), "float32 is nowhere between the first layer and the last"
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > correlation
    assert not np.array_equal(logits, expected)
