from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from enet_tvm.cli.main import main
from enet_tvm.size import Size
from enet_tvm.video.library import pyav
from enet_tvm.video.writer import VideoWriter

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second at 20 frames a second."""
    path = tmp_path_factory.mktemp("video") / "ride.mp4"
    with VideoWriter(path, Size(96, 64), Fraction(20)) as writer:
        for index in range(10):
            pixels = np.full((64, 96, 3), (20 * index, 90, 160), np.uint8)
            image = pyav().VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            image.pts, image.time_base = index, Fraction(1, 20)
            writer.write(image)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str, Path]]]:
    """Starts ``enet-tvm live ...`` and waits for the page's address."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: object) -> tuple[subprocess.Popen[bytes], str, Path]:
        log = tmp_path / f"log-{len(started)}"
        with open(log, "wb") as file:
            command = [sys.executable, "-m", "enet_tvm", "live", *map(str, arguments), "--port", "0", "--threads", "1"]
            started.append(subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"}))
        end = time.monotonic() + 90
        while "stop it with" not in (text := log.read_text()):
            assert started[-1].poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.05)
        return started[-1], re.findall(r"http://\S+", text)[0], log

    yield run
    for process in started:
        process.kill()
        process.wait()


def watch(address: str) -> Any:
    return connect(address.replace("http", "ws").replace("/?", "/watch?") + ("" if "?" in address else "watch"), max_size=None)


def frame_of(connection: Any) -> int:
    while isinstance(message := connection.recv(timeout=60), str):
        pass
    connection.send("drawn")
    length = int.from_bytes(message[:4], "big")
    number: int = json.loads(message[4 : 4 + length])["frame"]
    return number


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_file_in_a_loop_until_it_is_stopped(
    start: Callable[..., Any], tiny_artifact: Any, video: Path, number: signal.Signals
) -> None:
    process, address, log = start(tiny_artifact.directory, video, "--loop")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    with urllib.request.urlopen(address, timeout=30) as page:
        assert b"<canvas" in page.read()
    with watch(address) as viewer:
        frame = frame_of(viewer)
        while frame < 25:  # more than twice what the file holds
            before, frame = frame, frame_of(viewer)
            assert frame > before
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == 0
        # Ended in a third of a second where nothing else computes; here everything does.
        assert time.monotonic() - began < 10
    assert "error" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_file_ends_and_the_page_stays(start: Callable[..., Any], tiny_artifact: Any, video: Path) -> None:
    process, address, log = start(tiny_artifact.directory, video)
    end = time.monotonic() + 60
    while "the video has ended" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    with watch(address) as viewer:
        assert frame_of(viewer) == 9
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.mark.slow
def test_for_others_there_is_a_token(start: Callable[..., Any], tiny_artifact: Any, video: Path) -> None:
    _, address, log = start(tiny_artifact.directory, video, "--loop", "--host", "0.0.0.0")
    port, token = re.findall(r":(\d+)/\?token=(\S+)", address)[0]
    here = f"http://127.0.0.1:{port}/"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(here, timeout=30)
    with watch(f"{here}?token={token}") as viewer:
        assert frame_of(viewer) >= 0
    assert token not in log.read_text().replace(f"?token={token}", "")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["live", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_what_cannot_be_shown_is_said_in_a_sentence(
    tiny_artifact: Any, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: object) -> str:
        assert run(*arguments) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ")
        assert text.count("\n") == 1
        return text

    artifact = tiny_artifact.directory
    here = ("--port", "0")
    assert "no artifact" in error(tmp_path / "nothing", video, *here) or "nothing" in error(tmp_path / "nothing", video, *here)
    assert "nothing to show" in error(artifact, *here)
    assert "there is no file" in error(artifact, tmp_path / "none.mp4", *here)
    assert "no camera" in error(artifact, "--camera", "987", *here)
    assert "two sources" in error(artifact, video, "--camera", "0", *here)
    assert "between 0 and 1" in error(artifact, video, "--opacity", "2", *here)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "already" in error(artifact, video, "--port", taken.getsockname()[1])


def test_what_is_not_installed_is_named(
    tiny_artifact: Any, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(tiny_artifact.directory, video) == 2
    assert "pip install 'enet-tvm[live]'" in capsys.readouterr().err
