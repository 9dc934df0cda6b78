"""float16, bfloat16 and int8 on emulated ARM processors: the kernels' instructions, run by the C runner on a whole ENet."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import shipped_enet
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.device_bundle import BundleRequest
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.size import Size
from enet_tvm.targets import load_target

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(900)]

SIZE = Size(64, 48)
PROCESSORS = {
    "rpi5": "cortex-a76",
    "rk3588": "cortex-a76",
    "jetson-orin-cpu": "cortex-a76",
    "graviton3": "max",
    "graviton4": "max",
}
"""What qemu 7.2 calls each: to a Cortex-A78AE the A76 is the nearest, with the instructions of its target file."""
"""What stands for each target's processor: qemu 7.2 knows no Neoverse V1."""

# The vector forms, and those by element, of sdot, bfdot and fmla of eight halves, and smmla and bfmmla (Arm ARM, C7.2): bits
# that are fixed, and what they are.
INSTRUCTIONS = {
    "int8": ((0xFFE0FC00, 0x4E809400), (0xFFC0F400, 0x4F80E000)),
    "bfloat16": ((0xFFE0FC00, 0x6E40FC00), (0xFFC0F400, 0x4F40F000)),
    "float16": ((0xFFE0FC00, 0x4E400C00), (0xFFC0F400, 0x4F001000)),
    "int8 matrices": ((0xFFE0FC00, 0x4E80A400),),
    "bfloat16 matrices": ((0xFFE0FC00, 0x6E40EC00),),
}

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def runner(unpacked_bundle: Callable[[BundleRequest], Path]) -> Path:
    """The C runner for aarch64."""
    return unpacked_bundle(BundleRequest(load_target("graviton3"), "c")) / "bin/enet-run"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn street."""
    from enet_tvm.data.synthetic import SyntheticStreet

    path = tmp_path_factory.mktemp("picture") / "street.ppm"
    SyntheticStreet(SIZE, 1)[0][0].save(path)
    return path


@pytest.fixture(scope="module")
def reference(picture: Path) -> Logits:
    """What PyTorch says of it, in float32."""
    import torch

    from enet_tvm.networks import load_network, read_info
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import find_file

    weights = find_file(Path(DEFAULT_WEIGHTS))
    info = read_info(weights)
    pixels = np.asarray(Image.open(picture), np.float32) / 255
    normalised = (pixels - np.array(info.mean, np.float32)) / np.array(info.std, np.float32)
    x = np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])
    with torch.no_grad():
        logits: Logits = load_network(weights)(torch.from_numpy(x)).numpy()
    return logits


@pytest.fixture(scope="module")
def native(picture: Path) -> Callable[[str], Logits | None]:
    """Computes the same on this machine; None where its processor has no such dot product."""

    def compute(dtype: str) -> Logits | None:
        kinds = {"uint8", "int8"} if dtype == "int8" else {dtype}
        if not kinds & dot_products(load_target("native").to_tvm()):
            return None
        with Segmenter.load(shipped_enet("native", dtype=dtype), 1) as segmenter:
            logits: Logits = segmenter.forward(segmenter.preprocess(Image.open(picture)))
        return logits

    return compute


CASES = [("rpi5", "int8"), ("graviton3", "int8"), ("graviton3", "bfloat16"), ("rpi5", "float16"), ("graviton3", "float16")]
CASES += [("rk3588", "float16"), ("jetson-orin-cpu", "int8"), ("jetson-orin-cpu", "float16"), ("graviton4", "bfloat16")]


def run_there(device: Any, runner: Path, target: str, *arguments: str | Path) -> None:
    command = device.command(runner, "--runs", "1", "--warmup", "0", *arguments, cpu=PROCESSORS[target])
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result


def same_labels(a: Logits, b: Logits) -> float:
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def occurrences(library: Path, what: str) -> int:
    words = np.frombuffer(library.read_bytes()[: library.stat().st_size // 4 * 4], "<u4")
    return sum(int(((words & np.uint32(mask)) == bits).sum()) for mask, bits in INSTRUCTIONS[what])


@pytest.mark.parametrize(("target", "dtype"), CASES)
def test_instructions_of_arm(
    emulated_device: Any,
    runner: Path,
    picture: Path,
    reference: Logits,
    native: Callable[[str], Logits | None],
    tmp_path: Path,
    target: str,
    dtype: str,
) -> None:
    artifact = shipped_enet(target, dtype=dtype)
    # More than chance has among other words: it is this instruction that is tested.
    has_matrices = target.startswith("graviton") and dtype != "float16"
    assert occurrences(artifact / "enet.so", f"{dtype} matrices" if has_matrices else dtype) > (400 if has_matrices else 1000)
    run_there(emulated_device, runner, target, "--logits", tmp_path / "y.npy", artifact, picture)
    logits = np.load(tmp_path / "y.npy")
    # Of a picture so small, int8 loses much; a wrong kernel leaves nothing.
    error, agreement = {"int8": (0.6, 0.75), "bfloat16": (0.06, 0.98), "float16": (0.03, 0.99)}[dtype]
    assert np.abs(logits - reference).mean() < error
    assert same_labels(logits, reference) > agreement
    here = native(dtype)
    if here is None:
        return
    if dtype == "int8":
        # Sums of products of codes are exact, here and there.
        np.testing.assert_allclose(logits, here, rtol=0, atol=1e-4)
    else:
        assert np.abs(logits - here).mean() < 0.03
        assert same_labels(logits, here) > 0.985


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_labels_on_arm(emulated_device: Any, runner: Path, picture: Path, tmp_path: Path, dtype: str) -> None:
    logits, labels = (shipped_enet("rpi5", dtype=dtype, labels=labels) for labels in (False, True))
    run_there(emulated_device, runner, "rpi5", "--labels", tmp_path / "a.pgm", logits, picture)
    run_there(emulated_device, runner, "rpi5", "--labels", tmp_path / "b.pgm", labels, picture)
    expected = np.asarray(Image.open(tmp_path / "a.pgm"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.pgm")), expected)
    assert len(np.unique(expected)) > 2, "nothing to tell apart"
