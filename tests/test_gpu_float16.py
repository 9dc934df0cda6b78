"""GPU networks whose tensors are float16 between kernels: right on fibers, and as good on CamVid as PyTorch's float32."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from cuda_fibers import compile_fibers
from cuda_network import SharedPasses, cuda_network
from gpu_targets import GPU_TARGETS
from PIL import Image
from torch import nn

from enet_tvm import agreement
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.pipeline import Numerics
from enet_tvm.data.camvid import CamVid
from enet_tvm.evaluation.evaluate import Forward, evaluate, torch_forward
from enet_tvm.networks import ERFNet, SegNet, load_network, read_info
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.size import Size

CAMVID = Path(os.environ.get("ENET_TVM_CAMVID", Path(__file__).resolve().parents[2] / "shared/camvid"))
ARITHMETIC = {"jetson-tx1": "enet_multiply_add_pairs(", "h100": "enet_multiply_add_matrices_16("}
"""The function that a target's kernels in float16 multiply and add by."""
_HANDED_ON = re.compile(r"initial|bottleneck\d_\d|.*\.(project|shortcut)|bottleneck[45]_0\.conv|.*\.conv\.0")
"""Sub-modules of ENet whose outputs kernels hand on, and a few more: first parts of convolutions that are fused in most."""


def rounding(network: nn.Module) -> nn.Module:
    """Return a copy of ENet that rounds what its kernels on a GPU hand on to float16, and computes in float32."""
    network = copy.deepcopy(network).eval()

    def rounded(_module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (output[0].half().float(), *output[1:])
        return output.half().float()

    for name, module in network.named_modules():
        if _HANDED_ON.fullmatch(name):
            module.register_forward_hook(rounded)
    return network


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> SharedPasses:
    """Passes of one picture."""
    return SharedPasses(tmp_path_factory.mktemp("fibers"))


@pytest.fixture(scope="module")
def shipped() -> tuple[nn.Module, torch.Tensor, tvm.IRModule]:
    """The network that is shipped, noise, and the network imported for pictures of its size."""
    network = load_network(DEFAULT_WEIGHTS).eval()
    x = torch.randn((1, 3, 40, 64), generator=torch.Generator().manual_seed(1))
    return network, x, from_torch(network, tuple(x.shape))


@pytest.mark.slow
@pytest.mark.parametrize("target", GPU_TARGETS)
@torch.inference_mode()
def test_enet_on_fibers(passes: SharedPasses, shipped: tuple[nn.Module, torch.Tensor, tvm.IRModule], target: str):
    """The weights that are shipped, on noise, which has close logits: as far from PyTorch as the rounding of tensors alone."""
    network, x, imported = shipped
    made = cuda_network(imported, target, numerics=Numerics("float16"))
    assert len(made.launches) == 32
    assert {launch.layout.dtype for launch in made.launches[:-1]} == {"float16"}
    actual = passes.run(made, x.numpy())
    assert actual.dtype == np.float32
    expected, rounded = network(x).numpy(), rounding(network)(x).numpy()
    assert (actual.argmax(1) == expected.argmax(1)).mean() >= agreement.NOISE["float16"]
    # Medians: where two values of a pooling window are nearly equal, either may be taken, and a patch differs by far more.
    error, of_rounding = (np.median(np.abs(each - expected)) for each in (actual, rounded))
    assert 0 < error < 2 * of_rounding
    assert of_rounding < 5e-4 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(("target", "arithmetic"), ARITHMETIC.items(), ids=["pairs", "matrices"])
@pytest.mark.parametrize(("kind", "most"), [(ERFNet, 0.005), (SegNet, 0.15)], ids=["ERFNet", "SegNet"])
@torch.inference_mode()
def test_other_networks_on_fibers(
    randomised: Callable[..., nn.Module], tmp_path: Path, kind: type[nn.Module], most: float, target: str, arithmetic: str
):
    """At most so far from PyTorch's logits, as a share of the largest.

    SegNet unpools five times: where two values of a window are nearly equal, either may be taken, and logits around it differ
    by far more than rounding is.
    """
    network = randomised(kind(7))
    x = torch.randn((1, 3, 32, 64), generator=torch.Generator().manual_seed(1))
    made = cuda_network(from_torch(network, tuple(x.shape)), target, numerics=Numerics("float16"))
    assert arithmetic in made.source
    assert "float16" in {launch.layout.dtype for launch in made.launches}
    actual = made.run(compile_fibers(made.source, tmp_path), x.numpy())
    expected = network(x).numpy()
    assert np.bincount(expected.argmax(1).ravel()).max() < 0.9 * x[0, 0].numel()  # Several classes: labels tell something.
    assert (actual.argmax(1) == expected.argmax(1)).mean() >= agreement.NOISE["float16"]
    errors = np.abs(actual - expected) / np.abs(expected).max()
    assert 0 < np.median(errors) < 2e-3
    assert errors.max() < most


@pytest.mark.slow
@pytest.mark.camvid
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_mean_iou_on_camvid():
    """Every tensor rounded, computed by PyTorch: on each ninth picture the mean IoU is float32's, but for the limit."""
    info, network = read_info(DEFAULT_WEIGHTS), load_network(DEFAULT_WEIGHTS)
    samples = CamVid(CAMVID, "val")
    some = [samples[i] for i in range(0, len(samples), 9)]
    mious: list[float] = []
    labels: list[list[np.ndarray]] = []
    for each in (network.eval(), rounding(network)):
        seen: list[np.ndarray] = []
        metrics = evaluate(
            *(torch_forward(each), some, samples.class_set, info.mean, info.std),
            observe=lambda _index, prediction, _labels, seen=seen: seen.append(prediction),
        )
        mious.append(metrics.miou)
        labels.append(seen)
    agree = np.mean([(a == b).mean() for a, b in zip(*labels, strict=True)])
    print(f"{len(some)} pictures: {100 * agree:.2f} % of the labels, mIoU {mious[1]:.4f} for {mious[0]:.4f}")
    assert agree >= agreement.PICTURES["float16"]
    assert abs(mious[0] - mious[1]) <= agreement.PICTURES_MIOU["float16"]
    assert mious[0] > 0.6


@dataclass(frozen=True)
class Seen:
    """Pictures of CamVid, and PyTorch's mean IoU and labels on them."""

    camvid: CamVid
    samples: list[tuple[Image.Image, np.ndarray]]
    miou: float
    labels: list[np.ndarray]


SIZE = Size(width=240, height=176)
"""Size of the pictures for fibers, half as high and wide as CamVid's: each takes four seconds."""


def judged(forward: Forward, camvid: CamVid, samples: list[tuple[Image.Image, np.ndarray]]) -> tuple[float, list[np.ndarray]]:
    """Return the mean IoU, and the labels of each picture."""
    info = read_info(DEFAULT_WEIGHTS)
    labels: list[np.ndarray] = []
    metrics = evaluate(
        *(forward, samples, camvid.class_set, info.mean, info.std, SIZE),
        observe=lambda _index, prediction, _labels: labels.append(prediction),
    )
    return metrics.miou, labels


@pytest.fixture(scope="module")
def see() -> Callable[[int], Seen]:
    """Makes ``see(n)`` every second of four pictures that lie apart, from the n-th on."""
    camvid, network = CamVid(CAMVID, "val"), load_network(DEFAULT_WEIGHTS).eval()

    def of(first: int) -> Seen:
        samples = [camvid[i] for i in np.linspace(0, len(camvid) - 1, 4).astype(int)[first::2]]
        return Seen(camvid, samples, *judged(torch_forward(network), camvid, samples))

    return of


@pytest.mark.slow
@pytest.mark.camvid
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
@pytest.mark.parametrize(("target", "first"), [("jetson-tx1", 0), ("h100", 1)], ids=["pairs", "matrices"])
def test_mean_iou_of_the_kernels(tmp_path: Path, see: Callable[[int], Seen], target: str, first: int):
    """The generated CUDA C++ with its own float16 arithmetic, launch after launch on fibers."""
    seen = see(first)
    imported = from_torch(load_network(DEFAULT_WEIGHTS).eval(), (1, 3, SIZE.height, SIZE.width))
    made = cuda_network(imported, target, numerics=Numerics("float16"))
    assert ARITHMETIC[target] in made.source
    program = compile_fibers(made.source, tmp_path)
    miou, labels = judged(lambda x: made.run(program, x), seen.camvid, seen.samples)
    agree = np.mean([(a == b).mean() for a, b in zip(labels, seen.labels, strict=True)])
    print(f"{target}: {100 * agree:.2f} % of the labels, mIoU {miou:.4f} for {seen.miou:.4f}")
    assert seen.miou > 0.5
    assert agree < 1  # It is another arithmetic.
    assert agree >= agreement.PICTURES["float16"]
    assert abs(miou - seen.miou) <= agreement.PICTURES_MIOU["float16"]
