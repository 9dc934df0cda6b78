"""The same checks over every engine: on this machine, of one picture and of two, and over RPC on both servers of a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording_driver import RecordingDriver, recorded_artifact

from enet_tvm.artifact import check_artifact, read_manifest
from enet_tvm.cli.main import main
from enet_tvm.errors import UserError
from enet_tvm.evaluation import parity
from enet_tvm.machine import usable_cpus
from enet_tvm.networks import load_network
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.engine import LocalEngine
from enet_tvm.runtime.protocol import Capability, Engine, require
from enet_tvm.tuning.measure import Fleet
from enet_tvm.tuning.network import There

pytestmark = pytest.mark.timeout(120)

LOCAL = frozenset(Capability)
REMOTE = frozenset({Capability.TIMED_PASSES, Capability.KERNEL_OUTPUTS, Capability.KERNEL_TIMES})


@dataclass(frozen=True)
class Opened:
    segmenter: Segmenter
    engine: Engine
    artifact: Any
    capabilities: frozenset[Capability]

    def input(self, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(self.segmenter.manifest.input.shape, np.float32)


@pytest.fixture(params=["single", "batched", "not adaptive"])
def local(request: pytest.FixtureRequest, tiny_artifact: Any, tiny_artifact_of_two: Any) -> Iterator[Opened]:
    artifact = tiny_artifact_of_two if request.param == "batched" else tiny_artifact
    adaptive = request.param != "not adaptive"

    manifest = check_artifact(artifact.directory)
    engine = LocalEngine(artifact.directory / manifest.library, 1, adaptive=adaptive)
    with Segmenter(manifest, engine) as segmenter:
        yield Opened(segmenter, engine, artifact, LOCAL if adaptive else LOCAL - {Capability.ADAPTIVE_THREADS})


@pytest.fixture
def remote(device_server: Any, tiny_artifact_of_two: Any) -> Iterator[Opened]:
    with DeviceSegmenter.open(tiny_artifact_of_two.directory, device_server.tracker, "board", threads=1) as segmenter:
        yield Opened(segmenter, segmenter.engine, tiny_artifact_of_two, REMOTE)


def check(opened: Opened) -> None:
    """Everything that an engine declares, it does; what it does not declare, it refuses in a sentence."""
    segmenter, engine, manifest = opened.segmenter, opened.engine, opened.segmenter.manifest
    x = opened.input()
    expected = opened.artifact.reference(x)
    kernels = [kernel.name for kernel in manifest.kernels]
    assert segmenter.capabilities == engine.capabilities == opened.capabilities
    assert engine.name
    assert engine.threads == segmenter.threads == 1
    np.testing.assert_allclose(engine.run(x), expected, rtol=1e-5, atol=1e-5)
    assert engine.threads_now == segmenter.threads_now == 1

    output, device, transfer = segmenter.forward_timed(x)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    assert 0 < device < 60
    assert 0 <= transfer < 60

    outputs = segmenter.run_instrumented(x)
    assert [name for name, _ in outputs] == kernels
    np.testing.assert_array_equal(outputs[0][1], 2 * x)
    np.testing.assert_allclose(outputs[-1][1], expected, rtol=1e-5, atol=1e-5)
    # Of another input, so that nothing can be left over from the last time.
    other = opened.input(1)
    np.testing.assert_array_equal(segmenter.run_instrumented(other)[0][1], 2 * other)

    timed = segmenter.time_kernels(x, 3)
    assert [[name for name, _ in one] for one in timed] == [kernels] * 3
    assert all(0 < seconds < 60 for one in timed for _, seconds in one)
    # The instruments were in machines of their own.
    np.testing.assert_allclose(engine.run(x), expected, rtol=1e-5, atol=1e-5)

    assert len(segmenter.parts()) == 1  # it has one thread
    for capability in Capability:
        if capability in engine.capabilities:
            require(engine, capability, "")
        else:
            with pytest.raises(UserError, match=f"cannot {capability.value}; do this"):
                require(engine, capability, "do this")

    # One batch at a time is what instruments take, whatever runs it.
    wrong = np.zeros((len(x) + 1, *x.shape[1:]), np.float32)
    for call in (segmenter.forward_timed, segmenter.run_instrumented, lambda x: segmenter.time_kernels(x, 1)):
        with pytest.raises(UserError, match=f"compiled for batches of {len(x)}, not {len(x) + 1}"):
            call(wrong)
    engine.close()
    for refused in (engine.run, engine.run_timed, engine.run_instrumented, lambda x: engine.time_kernels(x, 1)):
        with pytest.raises(UserError, match="was closed"):
            refused(x)


def test_local_engines(local: Opened) -> None:
    check(local)


@pytest.mark.quick_cases(1)
def test_remote_engines(remote: Opened) -> None:
    check(remote)


@pytest.mark.quick_cases(1)
def test_both_write_and_time_the_same_kernels(compiled_enet: Any, device_server: Any) -> None:
    """Of a real network, with its layouts: byte for byte, as it is the same code on the same processor."""
    x = np.random.default_rng(0).standard_normal(read_manifest(compiled_enet.directory).input.shape, np.float32)
    with Segmenter.load(compiled_enet.directory, 1) as segmenter:
        here = segmenter.run_instrumented(x)
    with DeviceSegmenter.open(compiled_enet.directory, device_server.tracker, "board", threads=1) as device:
        there = device.run_instrumented(x)
        timed = device.time_kernels(x, 2)
        whole = device.forward_timed(x)[1]
    names = [name for name, _ in here]
    assert [name for name, _ in there] == names
    for (_, expected), (_, found) in zip(here, there, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [[name for name, _ in one] for one in timed] == [names] * 2
    assert len(set(names)) > 20
    assert whole > 0


def test_a_device_segmenter_is_opened_and_not_loaded(tiny_artifact: Any) -> None:
    with pytest.raises(UserError, match=r"make one with DeviceSegmenter\.open"):
        DeviceSegmenter.load(tiny_artifact.directory)


def test_a_device_uses_no_more_threads_than_it_has_processors(device_server: Any, tiny_artifact: Any) -> None:
    most = len(usable_cpus())
    with DeviceSegmenter.open(tiny_artifact.directory, device_server.tracker, "board", threads=most + 7) as segmenter:
        assert segmenter.threads == segmenter.threads_now == most


@pytest.mark.slow
def test_verify_names_the_first_wrong_layer_of_a_device(
    device_server: Any,
    compiled_enet: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PyTorch with one changed layer against the module without."""
    network = load_network(compiled_enet.weights)
    with torch.no_grad():
        network.get_submodule("bottleneck4_0.conv.0").weight.neg_()
    monkeypatch.setattr(parity, "load_reference", lambda *_: network)
    options = ["--synthetic", "1", "--tracker", str(device_server.tracker), "--key", "board"]
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(compiled_enet.directory), *options])
    assert ended.value.code == 1
    assert "the first layer to part is bottleneck4_0.conv" in capsys.readouterr().out


@pytest.mark.slow
def test_tuning_measures_every_launch_on_a_device(device_server: Any, tiny_artifact: Any) -> None:
    place = There(1, Fleet(device_server.tracker, "board"))
    launches, whole = place.launch_seconds(tiny_artifact.directory)
    assert len(launches) == read_manifest(tiny_artifact.directory).kernel_count
    assert min(launches) > 0  # divided by arithmetic, which the manifest does not know, all would be nothing
    assert whole > 0


def driver_calls(log: Path) -> list[str]:
    """Return the names of the calls of a driver that records, but for those that only make sure of something."""
    names = [line.partition("(")[0] for line in log.read_text().splitlines()]
    return [name for name in names if name not in ("cuCtxSetCurrent", "cuStreamSynchronize")]


@pytest.mark.slow
def test_one_graph_on_the_gpu_of_a_device(farm: Any, tmp_path: Path):
    """A device whose driver records: the network is captured once, launched once a pass, and timed by events."""
    try:
        artifact, recording = recorded_artifact(), RecordingDriver.build(tmp_path / "driver")
    except UserError as error:
        pytest.skip(str(error))
    log = tmp_path / "calls"
    _, tracker = farm.start_tracker()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(recording.folder), "FAKE_CUDA_LOG": str(log)}
    farm.start_server(tracker, environment=environment)
    x = np.zeros((1, 3, 24, 32), np.float32)
    with DeviceSegmenter.open(artifact, tracker, "board", threads=1) as device:
        opened = driver_calls(log)
        labels = device.forward(x)
        run = driver_calls(log)[len(opened) :]
        _, seconds, _ = device.forward_timed(x)
        timed = driver_calls(log)[len(opened) + len(run) :]
        kernels = device.time_kernels(x, 1)
    assert (labels.shape, labels.dtype) == ((1, 24, 32), np.uint8)
    captured = opened[opened.index("cuStreamBeginCapture_v2") : opened.index("cuStreamEndCapture")]
    assert captured.count("cuLaunchKernel") == 3
    assert run == ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2"]
    assert "cuLaunchKernel" not in timed
    assert seconds == pytest.approx(1.5e-3)  # what an event of that driver's is after the one before it
    assert [time for _, time in kernels[0]] == [pytest.approx(1.5e-3)] * 3
