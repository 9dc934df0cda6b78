from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enet_tvm.cli.main import main

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], re.Match[str]]]]:
    """Starts ``enet-tvm device ...`` and waits for a line."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, until: str) -> tuple[subprocess.Popen[bytes], re.Match[str]]:
        log = tmp_path / f"log-{len(started)}"
        with open(log, "wb") as file:
            command = [sys.executable, "-m", "enet_tvm", "device", *arguments]
            started.append(subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"}))
        end = time.monotonic() + 60
        while not (found := re.search(until, log.read_text())):
            assert started[-1].poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        return started[-1], found

    yield run
    for process in started:
        process.kill()
        process.wait()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["device", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_tracker_serve_and_list(start: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker, found = start("tracker", "--port", "0", until=r"tracker on (127\.0\.0\.1:\d+)")  # type: ignore[misc]
    address = found[1]
    assert run("list", "--tracker", address) == 0
    assert "no board is registered" in capsys.readouterr().out
    server, _ = start("serve", "--tracker", address, "--key", "rpi4", "--port", "0", until="registered at tracker")  # type: ignore[misc]
    assert run("list", "--tracker", address, "--json", str(tmp_path / "devices.json")) == 0
    said = capsys.readouterr().out
    assert "rpi4" in said
    assert "1 of 1" in said
    content = json.loads((tmp_path / "devices.json").read_text())
    assert content["keys"] == {"rpi4": {"devices": 1, "free": 1, "waiting": 0}}
    assert content["devices"][0]["free"] is True
    for process in (server, tracker):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--tracker", "127.0.0.1:1"], "no tracker answers at 127.0.0.1:1"),
        (["list", "--tracker", "nonsense:port"], "HOST:PORT"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "two words"], "is no key"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--folder", "/nowhere"], "no folder /nowhere"),
        (["tracker", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1:9190"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ["serve", "tracker"])
def test_help_says_what_rpc_is(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert "runs whatever code it is sent" in " ".join(capsys.readouterr().out.replace("│", " ").split())
