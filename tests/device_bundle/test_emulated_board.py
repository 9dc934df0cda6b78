"""The bundle of an emulated Cortex-A57: what a board without Python does with a whole ENet, alone and over RPC."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import shipped_enet
from PIL import Image

from enet_tvm.agreement import PICTURES
from enet_tvm.artifact import read_manifest
from enet_tvm.device_bundle import BundleRequest
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.rpc.session import open_session
from enet_tvm.runtime.labels import most_likely, resize_labels
from enet_tvm.runtime.overlay import overlay
from enet_tvm.runtime.pictures import load_picture
from enet_tvm.size import Size
from enet_tvm.targets import load_target

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(300)]

TARGET = "jetson-tx1-cpu"
TRACKER = """
from enet_tvm.rpc.tracker import run_tracker
run_tracker("127.0.0.1", 0, lambda port: print("port", port, flush=True))
"""


def said(path: Path, pattern: str, seconds: float = 60) -> re.Match[str]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := re.search(pattern, path.read_text()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {pattern!r} in: {path.read_text()}")


@pytest.fixture(scope="module")
def enet() -> Path:
    """The shipped ENet, compiled for the board at a small size."""
    return shipped_enet(TARGET)


@pytest.fixture(scope="module")
def folder(emulated_device: Any, unpacked_bundle: Callable[[BundleRequest], Path], enet: Path) -> Path:
    """The bundle, unpacked on the board."""
    return unpacked_bundle(BundleRequest(load_target(TARGET), artifact=enet))


@pytest.fixture(scope="module")
def farm(emulated_device: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Address, Path]]:
    """A tracker, and what the board's server says."""
    logs = tmp_path_factory.mktemp("logs")
    sessions = logs / "sessions"
    sessions.mkdir()
    with (logs / "tracker").open("wb") as output:
        tracker = subprocess.Popen([sys.executable, "-c", TRACKER], stdout=output, stderr=subprocess.STDOUT)
    try:
        address = Address("127.0.0.1", int(said(logs / "tracker", r"port (\d+)")[1]))
        options = ("--key", TARGET, "--port", "0", "--tracker", str(address))
        with (logs / "board").open("wb") as output:
            command = emulated_device.command(folder / "bin/enet-rpcd", *options)
            board = subprocess.Popen(command, stderr=output, env={**os.environ, "TMPDIR": str(sessions)})
        try:
            said(logs / "board", "registered with the tracker")
            yield address, logs / "board"
            board.send_signal(signal.SIGTERM)
            assert board.wait(20) == 0
            assert list(sessions.iterdir()) == []
        finally:
            board.kill()
            board.wait()
    finally:
        tracker.kill()
        tracker.wait()


def test_alone_and_over_rpc(emulated_device: Any, folder: Path, farm: tuple[Address, Path], tmp_path: Path) -> None:
    from enet_tvm.evaluation.inputs import open_inputs
    from enet_tvm.evaluation.parity import load_reference, verify

    artifact = folder / "artifact"
    x = np.random.default_rng(0).standard_normal((1, 3, 48, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    with DeviceSegmenter.open(artifact, farm[0], TARGET) as segmenter:
        inputs = open_inputs(segmenter, synthetic=2)
        report = verify(segmenter, load_reference(segmenter), inputs, inputs.class_set)
        over_rpc = segmenter.forward(x)
    assert report.passes(PICTURES["float32"])
    assert report.max_abs_logit_diff < 1e-3
    command = emulated_device.command(
        *(folder / "bin/enet-run", "--runs", "1", "--warmup", "0", "--logits", tmp_path / "y.npy", artifact, tmp_path / "x.npy")
    )
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert f"for {TARGET} at 64x48 on cpu" in result.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), over_rpc)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_of_another_size(emulated_device: Any, folder: Path, tmp_path: Path, suffix: str) -> None:
    """The board decodes, resizes and labels what Python does, to the bit."""
    small = np.random.default_rng(1).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    Image.fromarray(small).resize((200, 133), Image.Resampling.BICUBIC).save(tmp_path / f"x{suffix}")
    picture = load_picture(tmp_path / f"x{suffix}")
    manifest = read_manifest(folder / "artifact")

    def run(source: Path, *options: object) -> np.ndarray:
        words = ("--runs", "1", "--warmup", "0", "--logits", tmp_path / "y.npy", *options, folder / "artifact", source)
        command = emulated_device.command(folder / "bin/enet-run", *words)
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr
        return np.load(tmp_path / "y.npy")

    outputs = ("--labels", tmp_path / "labels.png", "--overlay", tmp_path / "seen.png")
    logits = run(tmp_path / f"x{suffix}", *outputs)
    pixels = np.asarray(picture.resize((64, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    mean, std = (np.array(values)[:, None, None] for values in (manifest.input.mean, manifest.input.std))
    x = pixels * (1 / (255 * std)).astype(np.float32) + (-mean / std).astype(np.float32)
    np.save(tmp_path / "x.npy", x[None])
    np.testing.assert_array_equal(logits, run(tmp_path / "x.npy"))
    labels = resize_labels(most_likely(logits[0]), Size(200, 133))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)
    expected = overlay(picture, labels, manifest.palette)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "seen.png")), np.asarray(expected))


def test_the_board_tells_what_it_is(farm: tuple[Address, Path]) -> None:
    with open_session(farm[0], TARGET) as session:
        facts = session.facts()
        assert facts["architecture"] == "aarch64"
        assert session.set_threads(1) == 1


def test_code_for_a_newer_processor(farm: tuple[Address, Path], tmp_path: Path) -> None:
    from enet_tvm.compiler.linking import zig_linker

    source = tmp_path / "newer.c"
    # udot v0.4s, v1.16b, v2.16b, of ARMv8.2
    source.write_text('int __tvm_ffi_newer(void) { __asm__ volatile(".inst 0x6e829420"); return 0; }\n')
    zig_linker("aarch64")(tmp_path / "newer.so", [str(source)])
    with open_session(farm[0], TARGET) as session:
        module = session.load_module(session.upload(tmp_path / "newer.so"))
        with pytest.raises(UserError, match="SIGILL"), session.within(20, "running the network"):
            module["newer"]()
    said(farm[1], "the session's process on the device died of SIGILL")
    with open_session(farm[0], TARGET, wait=20) as session:
        assert session.facts()["architecture"] == "aarch64"


def test_runner_refuses_what_is_for_another_machine(emulated_device: Any, folder: Path, tiny_artifact: Any) -> None:
    command = emulated_device.command(folder / "bin/enet-run", tiny_artifact.directory)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "and this machine is aarch64; compile it for this board" in result.stderr
