"""`enet-tvm tune` on a device: from the command line to a log that `compile` takes, also when the device dies in between."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_tuning import environment

from enet_tvm.agreement import PICTURES
from enet_tvm.artifact import read_manifest
from enet_tvm.compiler.tuning_log import read_log
from enet_tvm.rpc.address import Address
from enet_tvm.tuning.records import TRIALS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# The command line, on a network of a few kernels, in rounds of three trials, with a short contest, soon tired of a dead device.
COMMANDS = """
import functools
import json
import sys
from tiny_tuning import tiny_request
from enet_tvm.cli.main import main
from enet_tvm.tuning import session
from enet_tvm.tuning.budget import Effort
effort = Effort(round=3, turns=2, finalists=1, comparison=2.0)
session.TuneRequest = functools.partial(session.TuneRequest, effort=effort)
session.Measurer = functools.partial(session.Measurer, device_wait=8.0)
tiny_request(".")
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit as end:
        if end.code:
            raise
"""
NETWORK = ["--target", "native", "--weights", "tiny.safetensors", "--size", "40x16", "--threads", "1"]
FOLDER = Path("native/tiny-40x16-1thread")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a process that runs command lines, one after the other."""

    def run(*lines: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMANDS, json.dumps(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED="1"),
        )

    return run


def tuning(tracker: Address) -> list[str]:
    return ["tune", *NETWORK, "--tracker", str(tracker), "--key", "board", "--trials", "8", "--json", "tuned.json"]


def trials_on_disk(tmp_path: Path) -> int:
    file = tmp_path / "tuning_logs" / FOLDER.parent / f".{FOLDER.name}.unfinished" / TRIALS
    return len(file.read_text().splitlines())


@pytest.mark.alone
def test_a_device_that_dies_and_comes_back(farm: Any, start: Start, relays: Callable[[], list[Any]], tmp_path: Path) -> None:
    for name in ("cloudpickle", "xgboost"):
        pytest.importorskip(name)
    _, tracker = farm.start_tracker()
    server = farm.start_server(tracker)
    process = start(tuning(tracker))
    assert process.stdout is not None
    assert process.stderr is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("trials 3/8"):
            break
    else:
        pytest.fail(f"it ended before its first round: {said}, {process.stderr.read()}")
    server.kill()
    died = time.monotonic()
    rest, error = process.communicate(timeout=200)
    assert time.monotonic() - died < 100
    assert process.returncode == 2, (rest, error)
    sentences = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, error
    assert "Traceback" not in error
    found = re.search(r"the device .*; (\d+) trials are kept in .*, and the same command goes on from there$", sentences[0])
    assert found, sentences
    kept = trials_on_disk(tmp_path)
    assert 3 <= int(found[1]) == kept < 8
    assert not (tmp_path / "tuning_logs" / FOLDER).exists()

    farm.start_server(tracker)
    compiling = ["compile", *NETWORK, "--out", "artifact"]
    for _ in range(3):
        # On a busy machine a tuned network of two kernels may look slower than it is; the command then only judges again.
        process = start(tuning(tracker), compiling)
        output, error = process.communicate(timeout=300)
        assert process.returncode == 0, (output, error)
        if "not written" not in output:
            break
    assert f"written: tuning_logs/{FOLDER}" in output
    log = read_log(tmp_path / "tuning_logs" / FOLDER)
    assert log.trials == 8
    assert log.failed == 0
    assert log.parity.label_agreement >= PICTURES["float32"]
    figures = json.loads((tmp_path / "tuned.json").read_text())
    assert figures["written"] is True
    assert figures["plan"]["measured"] >= kept
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest.tuning is not None
    assert manifest.tuning.log == str(FOLDER)
    assert manifest.tuning.kernels == len(log.kernels) + len(log.functions) >= 2
    assert not relays()


def test_a_device_that_is_not_there(farm: Any, start: Start, tmp_path: Path) -> None:
    _, tracker = farm.start_tracker()
    process = start(tuning(tracker))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"the tracker at {tracker} has no device 'board'" in error
    assert not (tmp_path / "tuning_logs").exists()
