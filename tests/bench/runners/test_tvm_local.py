from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from enet_tvm.artifact import MANIFEST_NAME, read_manifest
from enet_tvm.bench.runners import open_runner
from enet_tvm.errors import UserError
from enet_tvm.size import Size


@pytest.mark.usefixtures("processor_as_gpu")
def test_transfer_of_ours_on_a_gpu_is_told_apart(compiled_enet, case, tmp_path):
    x = np.zeros(case.input_shape, np.float32)
    with open_runner("tvm", case) as runner:
        runner.forward(x)
        assert runner.last_pass() is None
    shutil.copytree(compiled_enet.directory, tmp_path / "gpu")
    manifest = read_manifest(tmp_path / "gpu")
    target = manifest.target.model_copy(update={"device": "cuda"})
    (tmp_path / "gpu" / MANIFEST_NAME).write_text(manifest.model_copy(update={"target": target}).model_dump_json())
    with open_runner("tvm", replace(case, artifact=tmp_path / "gpu")) as runner:
        runner.forward(x)
        assert runner.last_pass().transfer > 0
        assert runner.last_pass().device > 0


def test_an_artifact_of_other_weights_or_size_is_refused(case, compiled_enet, tmp_path):
    with pytest.raises(UserError, match=r"takes 1 pictures of 64x48 at once, and 1 of 96x64 is to be timed"):
        open_runner("tvm", replace(case, artifact=compiled_enet.directory, workload=replace(case.workload, size=Size(96, 64))))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    with pytest.raises(UserError, match="was not compiled from"):
        open_runner("tvm", replace(case, artifact=compiled_enet.directory, workload=replace(case.workload, weights=other)))
