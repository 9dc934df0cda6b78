"""`bench` on a device: this machine's own server stands for the board."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enet_tvm.artifact import OutputInfo, read_manifest
from enet_tvm.bench.comparison import compare
from enet_tvm.bench.report.tables import tables
from enet_tvm.bench.runners import Case
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.machine import usable_cpus
from enet_tvm.size import Size
from enet_tvm.targets import load_target

pytestmark = pytest.mark.timeout(200)


def case(compiled_enet: Any, tracker: Any, folder: Path, threads: int = 1) -> Case:
    workload = Workload(compiled_enet.weights, Size(64, 48), load_target("native"), threads)
    return Case(workload, folder, str(tracker), "board", compiled_enet.directory)


def test_what_is_reported(board: Any, compiled_enet: Any, tmp_path: Path) -> None:
    result = compare(["tvm-rpc"], case(compiled_enet, board[0], tmp_path), seconds=0.5, streams=(1,))
    (entry,) = result.entries
    assert entry.passes
    assert entry.max_abs_logit_diff < 1e-3
    assert entry.latency is not None
    assert entry.latency.transfers
    assert 0 < entry.latency.median < 60
    assert "1 threads" in entry.description
    assert result.to_dict()["threads"] == 1
    assert not any("no more processors" in warning for warning in result.warnings)
    assert set(entry.artifact) == {"enet.so", "manifest.json"}
    assert entry.footprint is not None
    assert entry.footprint.memory_bytes is not None
    assert entry.footprint.memory_bytes > 1 << 20
    assert entry.device is not None
    assert entry.device.system.startswith("Linux")


@pytest.mark.slow
def test_threads_are_those_of_the_device(board: Any, compiled_enet: Any, tmp_path: Path) -> None:
    # A target of four cores, say, on a device of two.
    there, wanted = len(usable_cpus()), len(usable_cpus()) + 3
    result = compare(["tvm-rpc"], case(compiled_enet, board[0], tmp_path, wanted), seconds=0.1)
    (entry,) = result.to_dict()["entries"]
    assert entry["threads"] == result.to_dict()["threads"] == there
    assert f", {there} threads, on " in entry["description"]
    assert any(f"{wanted} were wanted" in warning for warning in result.warnings)
    (latency, *_) = tables(result.to_dict())
    assert f"{there} thread" in latency.title
    assert f"{wanted} thread" not in latency.title


def changed(compiled_enet: Any, folder: Path, **changes: Any) -> Any:
    """A copy of the artifact whose manifest says something else."""
    shutil.copytree(compiled_enet.directory, folder)
    manifest = read_manifest(folder).model_copy(update=changes)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return SimpleNamespace(weights=compiled_enet.weights, directory=folder)


@pytest.mark.slow
def test_an_artifact_is_judged_by_what_it_computes_in(board: Any, compiled_enet: Any, tmp_path: Path) -> None:
    artifact = changed(compiled_enet, tmp_path / "artifact", dtype="int8")
    result = compare(["tvm-rpc", "tvm"], case(artifact, board[0], tmp_path), seconds=0.1)
    assert [entry.precision for entry in result.entries] == ["int8", "int8"]
    assert "in int8" in result.entries[0].description


def test_an_artifact_that_returns_labels_is_refused(board: Any, compiled_enet: Any, tmp_path: Path) -> None:
    labels = OutputInfo(shape=(1, 48, 64), dtype="uint8", layout="NHW")
    artifact = changed(compiled_enet, tmp_path / "artifact", output=labels)
    for runner in ("tvm-rpc", "tvm"):
        with pytest.raises(UserError, match=r"returns labels, .* compile it with --output logits"):
            compare([runner], case(artifact, board[0], tmp_path), seconds=0.1)


@pytest.mark.slow
def test_device_that_dies(farm: Any, compiled_enet: Any, tmp_path: Path, later: Callable[[float, int, int], None]) -> None:
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    later(4, signal.SIGKILL, server.pid)
    with pytest.raises(UserError, match=r"was lost while|no device 'board'|crashed"):
        compare(["tvm-rpc"], case(compiled_enet, tracker, tmp_path), seconds=120)
    server.process.wait()
    farm.start_server(tracker)
    result = compare(["tvm-rpc"], case(compiled_enet, tracker, tmp_path), seconds=0.1)
    assert result.entries[0].passes
