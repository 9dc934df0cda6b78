"""Calibrating a GPU: all of it but the GPU, whose driver records what it is called for."""

from __future__ import annotations

import pytest
from recording_driver import RecordingDriver
from tiny_tuning import environment

from enet_tvm.compiler.cuda.calibration import Calibration
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target
from enet_tvm.tuning.gpu_calibration import calibrate_gpu

CALIBRATED = """
from recording_driver import recorded_target
from enet_tvm.tuning import gpu_calibration
from enet_tvm.tuning.measure import Timing
gpu_calibration.microbenchmarks = lambda count, one, real=gpu_calibration.microbenchmarks: real(1, one)
notes = []
found = gpu_calibration.calibrate_gpu(recorded_target(), None, notes.append, Timing(repeats=2, milliseconds=1))
answer(found=found.model_dump(mode="json"), notes=notes)
"""


def test_without_a_gpu():
    with pytest.raises(UserError, match=r"; calibrate on a machine with the GPU, or give --tracker HOST:PORT"):
        calibrate_gpu(load_target("jetson-tx1"))
    with pytest.raises(UserError, match="rpi4 has no GPU"):
        calibrate_gpu(load_target("rpi4"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("tools")
def test_on_a_gpu(tmp_path_factory: pytest.TempPathFactory):
    """An event of the driver is 1.5 ms after the one before it, so all launches between two take that together."""
    try:
        recording = RecordingDriver.build(tmp_path_factory.mktemp("cuda"))
    except UserError as error:
        pytest.skip(str(error))
    got = recording.run(CALIBRATED, seconds=500, PYTHONPATH=environment()["PYTHONPATH"])
    found = Calibration.model_validate(got["found"])
    assert (found.gpu, found.arch, found.multiprocessors) == ("Fake 0", "sm_53", 1016)
    assert got["notes"] == [
        "timing microbenchmarks on Fake 0, 1016 multiprocessors",
        "timing networks of tiny layers as graphs",
    ]
    # The copy of 2 x 32 MB for one of 1.5 ms, or of several launches in it.
    launches = found.constants.gbps * 1e9 * 1.5e-3 / 2**26
    assert launches == pytest.approx(round(launches))
    # Both networks take 1.5 ms.
    assert found.constants.launch_us == pytest.approx(0.1)
