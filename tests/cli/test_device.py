from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enet_tvm.cli.main import main
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import parse_address
from enet_tvm.rpc.devices import claim_device
from enet_tvm.rpc.wire import TRACKER_MAGIC, pack_int, pack_text, receive_int, receive_text

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


def test_names_of_others_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tracker that is not ours may know any name; whoever registered it chose it."""
    key = "\x1b[2J[red]pi\a"
    summary = {
        "server_info": [{"key": f"server:{key}", "addr": ["fe80::1", 9090]}],
        "queue_info": {key: {"free": 0, "pending": 3}},
    }

    def answer() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                receive_int(connection)
                connection.sendall(pack_int(TRACKER_MAGIC))
                receive_text(connection)
                connection.sendall(pack_text(json.dumps([0, summary])))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert run("list", "--tracker", address, "--json", str(tmp_path / "devices.json")) == 0
        said = capsys.readouterr().out
        with pytest.raises(UserError) as caught:
            claim_device(parse_address(address), "rpi4", wait=0)
        thread.join()
    assert said.replace("\n", "").isprintable(), ascii(said)
    assert r"\x1b[2J[red]pi\x07" in said
    assert "[fe80::1]:9090" in said
    assert "3 wait" in said
    assert r"it has \x1b[2J[red]pi\x07" in str(caught.value)
    assert str(caught.value).isprintable()
    assert json.loads((tmp_path / "devices.json").read_text())["devices"][0]["key"] == key, "as it is, for programs"


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--tracker", "127.0.0.1:1"], "no tracker answers at 127.0.0.1:1"),
        (["list", "--tracker", "nonsense:port"], "HOST:PORT"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "two words"], "is no key"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--folder", "/nowhere"], "no folder /nowhere"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k" * 101], "is no key"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "a\x1b[2J"], r"'a\x1b[2J' is no key"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--custom-addr", "pi:9090"], "--custom-addr is a host's name"),
        (["serve", "--tracker", "127.0.0.1:1", "--key", "k", "--host", "a..b"], "--host is a host's name"),
        (["serve", "--tracker", "[::1", "--key", "k"], "HOST:PORT"),
        (["tracker", "--host", "127.0.0.1:9190"], "--host is a host's name"),
        (["list", "--tracker", "[::1]:1"], "no tracker answers at [::1]:1"),
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
