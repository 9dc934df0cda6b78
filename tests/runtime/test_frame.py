"""A frame as one graph: its results on the processor in a GPU's place, and what it asks of one on a driver that records."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import artifact_of, compile_request
from recording_driver import RecordingDriver, recorded_artifact, recorded_target

from enet_tvm.errors import UserError
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.runtime.frame import Frame
from enet_tvm.runtime.libraries import load_runtime
from enet_tvm.runtime.queues import HostQueue
from enet_tvm.size import Size

SHAPE = (1, 3, 4, 6)


class Doubling:
    """A network that doubles, on the processor, and remembers the memory that it was called with."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []

    def __call__(self, source: Any, target: Any) -> None:
        self.places.append((source.data_ptr(), target.data_ptr()))
        np.from_dlpack(target)[...] = 2 * np.from_dlpack(source)


def test_results_through_memory_that_stays_where_it_is():
    network = Doubling()
    frame = Frame(HostQueue(load_runtime()), network, SHAPE, SHAPE, "float32")
    assert len(network.places) == 1  # It was captured.
    x = np.arange(72, dtype=np.float32).reshape(SHAPE)
    first = frame.run(x)
    second, times = frame.run_timed(x[:, ::-1])
    np.testing.assert_array_equal(first, 2 * x)  # A result of its own, which the next frame leaves alone.
    np.testing.assert_array_equal(second, 2 * x[:, ::-1])
    assert len(set(network.places)) == 1
    assert times.device > 0
    assert times.transfer > 0
    with pytest.raises(ValueError, match=r"of shape \(3, 4, 6\), and the network takes \(1, 3, 4, 6\)"):
        frame.run(x[0])
    frame.close()


def test_a_device_that_cannot_is_said():
    def fails(*_: object) -> None:
        raise RuntimeError("Traceback of TVM\nCUDA: out of memory")

    with pytest.raises(UserError, match=r"on this machine's GPU \(CUDA: out of memory\); free .*: set ENET_TVM_CUDA_GRAPH=0$"):
        Frame(HostQueue(load_runtime()), fails, SHAPE, SHAPE, "uint8")


# On a driver that records


@pytest.fixture(scope="module")
def compiled_for_gpu() -> Path:
    """A network of three launches that returns labels."""
    try:
        return recorded_artifact()
    except UserError as error:
        pytest.skip(str(error))


RUN = """
        import numpy as np
        from enet_tvm.runtime import Segmenter
        x = np.zeros((1, 3, 24, 32), np.float32)
"""


def names(calls: list[str]) -> list[str]:
    return [call.partition("(")[0] for call in calls]


def test_a_frame_is_one_launch(recording: RecordingDriver, compiled_for_gpu: Path):
    got = recording.run(
        RUN
        + """
        with Segmenter.load(sys.argv[2]) as segmenter:
            load = calls()
            output = segmenter.forward(x)
            first = calls()
            segmenter.forward(x)
            second = calls()
            kernels = segmenter.manifest.kernel_count
        answer(load=load, first=first, second=second, kernels=kernels, shape=output.shape, dtype=str(output.dtype))
    """,
        str(compiled_for_gpu),
    )
    assert (got["shape"], got["dtype"], got["kernels"]) == ([1, 24, 32], "uint8", 3)
    # Once to warm up, and once, all of it, for the graph.
    load = names(got["load"])
    captured = load[load.index("cuStreamBeginCapture_v2") : load.index("cuStreamEndCapture")]
    assert captured.count("cuLaunchKernel") == 3
    assert load.count("cuLaunchKernel") == 6
    assert load.count("cuStreamBeginCapture_v2") == load.count("cuGraphInstantiate") == 1
    assert load.count("cuMemAllocHost_v2") == 2
    # The picture there, one launch, the labels back, all in one stream, and one wait.
    assert names(got["first"]) == ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
    sizes = [int(re.search(r"\((\d+), ", call)[1]) for call in got["first"] if "Memcpy" in call]  # type: ignore[index]
    assert sizes == [4 * 3 * 24 * 32, 24 * 32]
    streams = {re.search(r"(0x\w+)\)$", call)[1] for call in got["first"]}  # type: ignore[index]
    assert len(streams) == 1
    assert got["second"] == got["first"]


def test_times_are_those_of_events(recording: RecordingDriver, compiled_for_gpu: Path):
    got = recording.run(
        RUN
        + """
        with Segmenter.load(sys.argv[2]) as segmenter:
            calls()
            _, device, transfer = segmenter.forward_timed(x)
            timed = calls()
            kernels = segmenter.time_kernels(x, 1)
            watched = calls()
        answer(device=device, transfer=transfer, timed=timed, kernels=kernels, watched=watched)
    """,
        str(compiled_for_gpu),
    )
    # An event of the driver's is 1.5 ms after the one before it.
    assert got["device"] == pytest.approx(1.5e-3)
    assert got["transfer"] >= 3e-3
    order = [name for name in names(got["timed"]) if name not in ("cuEventCreate", "cuEventDestroy_v2", "cuEventElapsedTime")]
    record = "cuEventRecord"
    moved = [record, "cuMemcpyHtoDAsync_v2", record, "cuGraphLaunch", record, "cuMemcpyDtoHAsync_v2", record]
    assert order == [*moved, "cuStreamSynchronize"]
    assert [seconds for _, seconds in got["kernels"][0]] == [pytest.approx(1.5e-3)] * 3
    # Kernel by kernel, no wait between them: one at the end.
    watched = names(got["watched"])
    launches = [place for place, name in enumerate(watched) if name == "cuLaunchKernel"]
    assert len(launches) == 3
    assert "cuStreamSynchronize" not in watched[launches[0] : launches[-1]]
    assert Counter(watched)[record] == 6


def test_two_frames_in_flight_have_a_stream_and_a_graph_each(recording: RecordingDriver, compiled_for_gpu: Path):
    got = recording.run(
        RUN
        + """
        frames = [np.zeros((24, 32, 3), np.uint8)] * 5
        with Segmenter.load(sys.argv[2]) as segmenter:
            calls()
            parts = segmenter.parts()
            again = segmenter.parts()
            made = calls()
            with segmenter.stream(frames) as results:
                count = len(list(results))
            ran = calls()
        answer(parts=len(parts), same=all(a is b for a, b in zip(parts, again)), own=parts[0] is segmenter, made=made, ran=ran,
               count=count)
    """,
        str(compiled_for_gpu),
    )
    assert (got["parts"], got["same"], got["own"], got["count"]) == (2, True, True, 5)
    assert names(got["made"]).count("cuGraphInstantiate") == 1
    launches = {call for call in got["ran"] if call.startswith("cuGraphLaunch")}
    assert 1 <= len(launches) <= 2
    assert len({call.partition(", ")[2] for call in launches}) == len(launches)
    assert names(got["ran"]).count("cuGraphLaunch") == 5
    assert "cuLaunchKernel" not in names(got["ran"])


def test_kernel_by_kernel_where_that_is_asked_for(recording: RecordingDriver, compiled_for_gpu: Path):
    code = (
        RUN
        + """
        with Segmenter.load(sys.argv[2]) as segmenter:
            calls()
            segmenter.forward(x)
            made = calls()
            parts = len(segmenter.parts())
        answer(made=made, parts=parts)
    """
    )
    got = recording.run(code, str(compiled_for_gpu), ENET_TVM_CUDA_GRAPH="0")
    assert names(got["made"]).count("cuLaunchKernel") == 3
    assert "cuGraphLaunch" not in names(got["made"])
    assert got["parts"] == 1


@pytest.mark.slow
def test_a_driver_that_cannot_capture(recording: RecordingDriver, compiled_for_gpu: Path):
    got = recording.run(
        RUN
        + """
        from enet_tvm.errors import UserError
        driver.fake_fail(b"cuStreamBeginCapture_v2", 801)
        try:
            Segmenter.load(sys.argv[2])
        except UserError as error:
            answer(said=str(error))
    """,
        str(compiled_for_gpu),
    )
    assert re.search(r"^the network cannot be set up on this machine's GPU \(.*\); .*: set ENET_TVM_CUDA_GRAPH=0$", got["said"])


def test_a_later_gpus_artifact_is_refused(recording: RecordingDriver, compiled_for_gpu: Path, tmp_path: Path):
    """By the driver's own word of what its GPU is."""
    manifest = (compiled_for_gpu / "manifest.json").read_text()
    (tmp_path / "enet.so").write_bytes((compiled_for_gpu / "enet.so").read_bytes())
    (tmp_path / "manifest.json").write_text(manifest.replace('"arch": "sm_53"', '"arch": "sm_61"'))
    got = recording.run(
        RUN
        + """
        from enet_tvm.errors import UserError
        try:
            Segmenter.load(sys.argv[2])
        except UserError as error:
            answer(said=str(error))
    """,
        str(tmp_path),
    )
    assert "(sm_61), and this machine's GPU is sm_53, which is older" in got["said"]


@pytest.mark.slow
@pytest.mark.usefixtures("tools")
def test_enet_is_one_launch(recording: RecordingDriver):
    given = {"weights": Path(DEFAULT_WEIGHTS), "size": Size(64, 48), "target": recorded_target()}
    artifact = artifact_of(compile_request(**given, labels=True, untuned=True, command="pytest"))
    got = recording.run(
        """
        import numpy as np
        from enet_tvm.runtime import Segmenter
        with Segmenter.load(sys.argv[2]) as segmenter:
            load = calls()
            segmenter.forward(np.zeros((1, 3, 48, 64), np.float32))
            answer(load=load, frame=calls(), kernels=segmenter.manifest.kernel_count)
    """,
        str(artifact),
    )
    load = names(got["load"])
    captured = load[load.index("cuStreamBeginCapture_v2") : load.index("cuStreamEndCapture")]
    assert captured.count("cuLaunchKernel") == got["kernels"] == 32
    assert names(got["frame"]) == ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
