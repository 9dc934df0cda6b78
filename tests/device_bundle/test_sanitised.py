"""The programs' readers under address and undefined-behaviour sanitisers, with files and messages that are damaged."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from enet_tvm.rpc import session_process as names

Build = Callable[[str], Path]

CASES, SECONDS = 3000, 60
"""Of each kind; where time runs out, fewer."""
QUICK_CASES, QUICK_SECONDS = 300, 1
PICTURES = ("jpeg", "png", "sealed-png", "ppm", "yuyv")
KINDS = (*PICTURES, "manifest", "npy", "greeting", "address", "name", "answer", "json")
MAGIC = 0xFF271
QUIET = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def greeting(text: bytes) -> bytes:
    return struct.pack("<ii", MAGIC, len(text)) + text


@pytest.fixture(scope="module")
def corpus(tiny_artifact: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Good files of each kind, to be damaged."""
    root = tmp_path_factory.mktemp("corpus")
    manifest = json.loads((tiny_artifact.directory / "manifest.json").read_text())
    manifest["target"]["cpu_features"] = ["fpu" if os.uname().machine == "x86_64" else "asimd"]
    x = np.zeros((1, 3, 16, 24), np.float32)
    np.save(root / "a.npy", x)
    with (root / "b.npy").open("wb") as file:
        np.lib.format.write_array(file, x, (2, 0))
    texts = {
        "manifest": [json.dumps(manifest).encode(), json.dumps(manifest, indent=1).encode()],
        "greeting": [greeting(b"client:board"), greeting(b"client:board:0.123 -timeout=3600"), greeting(b"")],
        "address": [b"[::1]:9190", b"host.example:80", b"fe80::1%eth0", b"192.168.1.10"],
        "name": [b"enet.so", b"a/b/c", b"./x"],
        "answer": [b"0", b'["board:0.0123456789012345", "other"]', b"[]"],
        "json": [b'{"a": [1, 2.5e3, "x\\u00e9\\ud83d\\ude00", null, true], "target": {"name": "b\\n"}}'],
    }
    found: dict[str, list[Path]] = {"npy": [root / "a.npy", root / "b.npy"], **pictures(root)}
    for kind, contents in texts.items():
        found[kind] = [root / f"{kind}-{i}" for i in range(len(contents))]
        for path, content in zip(found[kind], contents, strict=True):
            path.write_bytes(content)
    return found


def pictures(root: Path) -> dict[str, list[Path]]:
    """Write pictures of every kind, small ones, so that most bytes matter."""
    image = Image.effect_noise((24, 16), 90).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    kinds: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "jpeg": [
            (image, {"exif": exif.tobytes()}),
            (image, {"progressive": True, "subsampling": 0}),
            (image, {"subsampling": 1, "restart_marker_blocks": 1}),
            (image.convert("CMYK"), {"optimize": True}),
            (image.convert("L"), {}),
        ],
        "png": [
            (image, {"exif": exif.tobytes()}),
            (image.convert("P"), {"transparency": bytes(range(200))}),
            (image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4), {"bits": 2}),
            (image.convert("LA"), {}),
            (Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170), {}),
        ],
        "ppm": [(image, {})],
    }
    found: dict[str, list[Path]] = {}
    for kind, all_of_it in kinds.items():
        found[kind] = [root / f"{number}.{kind}" for number in range(len(all_of_it))]
        for path, (picture, options) in zip(found[kind], all_of_it, strict=True):
            picture.save(path, **options)
    (root / "comments.ppm").write_bytes(found["ppm"][0].read_bytes().replace(b"P6\n", b"P6 #one\n # two\n", 1))
    found["ppm"].append(root / "comments.ppm")
    found["sealed-png"] = found["png"]
    (root / "frame.yuyv").write_bytes(bytes(range(200)) * 4)  # of the size that readers.c takes
    found["yuyv"] = [root / "frame.yuyv"]
    return found


@pytest.mark.slow  # for the compiler under sanitisers
@pytest.mark.parametrize("kind", KINDS)
def test_readers_survive_something(
    sanitised_readers: Any, corpus: dict[str, list[Path]], spoilt_artifact: Path, kind: str
) -> None:
    (line,) = sanitised_readers.run("fuzz", kind, 5, QUICK_CASES, QUICK_SECONDS, spoilt_artifact, *corpus[kind])
    accepted, of = map(int, re.fullmatch(r"(\d+) of (\d+) accepted", line).groups())  # type: ignore[union-attr]
    assert 0 < of <= QUICK_CASES
    assert 0 < accepted < of


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_readers_survive_everything(
    sanitised_readers: Any, corpus: dict[str, list[Path]], spoilt_artifact: Path, kind: str
) -> None:
    cases = 5 * CASES if kind in PICTURES else CASES
    (line,) = sanitised_readers.run("fuzz", kind, 11, cases, SECONDS, spoilt_artifact, *corpus[kind])
    accepted, of = map(int, re.fullmatch(r"(\d+) of (\d+) accepted", line).groups())  # type: ignore[union-attr]
    assert of > CASES // 3
    # Some damages hurt nothing; if all were refused, nothing behind the first check would have been tried.
    assert of // 50 < accepted < of - of // 50


@pytest.mark.slow
def test_hashes_are_hashlibs(sanitised_readers: Any, tmp_path: Path) -> None:
    contents = [bytes(range(256)) * 4][0]
    paths = []
    for length in (*range(0, 130), 1000):
        paths.append(tmp_path / str(length))
        paths[-1].write_bytes(contents[:length])
    assert sanitised_readers.run("hash", *paths) == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **QUIET}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [[17592186044416, 3, 1048576, 16], [1048576] * 4, [1, 3, 1048577, 1], [2**63, 3, 1, 1]])
def test_shapes_that_no_integer_holds(sanitised_programs: Build, spoilt_artifact: Path, shape: list[int]) -> None:
    path = spoilt_artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["input"]["shape"] = shape
    path.write_text(json.dumps(manifest))
    result = run(sanitised_programs("enet-run"), spoilt_artifact)
    assert result.returncode == 2, result.stderr
    assert re.fullmatch(r"enet-run: error: .*(input\.shape|not valid JSON).*compile it again\n", result.stderr)


@pytest.mark.slow
def test_a_whole_run(sanitised_programs: Build, tiny_artifact: Any, corpus: dict[str, list[Path]], tmp_path: Path) -> None:
    outputs = ("--labels", tmp_path / "y.pgm", "--logits", tmp_path / "y.npy", "--json", tmp_path / "y.json")
    result = run(sanitised_programs("enet-run"), "--runs", 2, *outputs, tiny_artifact.directory, corpus["npy"][0])
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert np.load(tmp_path / "y.npy").shape == (1, 4, 16, 24)
    assert json.loads((tmp_path / "y.json").read_text())["runs"] == 2
    for path in (path for kind in ("jpeg", "png", "ppm") for path in corpus[kind]):
        outputs = ("--labels", tmp_path / "y.png", "--overlay", tmp_path / "seen.png")
        result = run(sanitised_programs("enet-run"), "--runs", 1, *outputs, tiny_artifact.directory, path)
        assert result.returncode == 0, result.stderr
        assert Image.open(tmp_path / "seen.png").size == Image.open(tmp_path / "y.png").size


def shakes_hands(port: int, key: bytes = b"board") -> bool:
    """Whether a client with the right key is served; it leaves at once."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(greeting(b"client:" + key + b" -timeout=5"))
        answer = b""
        while len(answer) < 8 and (part := connection.recv(64)):
            answer += part
    return struct.unpack("<i", answer[:4])[0] == MAGIC


def damaged(random: random.Random) -> bytes:
    good = greeting(random.choice([b"client:board", b"client:other -timeout=1", b"client:", b"server:board", b""]))
    data = bytearray(good)
    for _ in range(random.randrange(4)):
        at = random.randrange(len(data))
        match random.randrange(4):
            case 0:
                data[at] = random.randrange(256)
            case 1:
                del data[at : at + random.randrange(9)]
            case 2:
                data[at:at] = random.randbytes(random.randrange(40))
            case _:
                data[4:8] = struct.pack("<i", random.choice([0, -1, 1, 4096, 4097, 2**31 - 1, -(2**31)]))
        if not data:
            data = bytearray(good)
    return bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_goes_on_after_anything_a_client_says(sanitised_programs: Build, tmp_path: Path) -> None:
    command = [str(sanitised_programs("enet-rpcd")), "--key", "board", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **QUIET, "TMPDIR": str(tmp_path)})
    try:
        port = int(said(tmp_path / "log", r"port (\d+)")[1])
        dice = random.Random(11)
        held = []
        for i in range(600):
            connection = socket.create_connection(("127.0.0.1", port), 10)
            data = damaged(dice)
            cut = dice.randrange(len(data) + 1)
            try:
                connection.sendall(data[:cut])
                if dice.randrange(4) == 0:
                    connection.sendall(data[cut:])
            except OSError:
                pass  # it has closed the connection already
            held.append(connection)
            if len(held) > dice.randrange(80):
                held.pop(dice.randrange(len(held))).close()
            if i % 100 == 99:
                for other in held:  # one of them may have been let in
                    other.close()
                held.clear()
                assert shakes_hands(port)
        process.terminate()
        assert process.wait(20) == 0
        text = (tmp_path / "log").read_text()
        assert "Sanitizer" not in text
        assert "runtime error" not in text
        assert not list(tmp_path.glob("enet-rpcd-*"))
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_session_kernel_by_kernel(sanitised_programs: Build, tiny_artifact: Any, tmp_path: Path) -> None:
    """What a session's functions keep, hand out once and let go of; each twice, and in the middle of it one that fails."""
    import tvm
    from tvm import relax, rpc

    command = [str(sanitised_programs("enet-rpcd")), "--key", "board", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **QUIET, "TMPDIR": str(tmp_path)})
    try:
        remote = rpc.connect("127.0.0.1", int(said(tmp_path / "log", r"port (\d+)")[1]), "board", session_timeout=60)
        assert remote.get_function(names.CONFIGURE_THREADS)(1) == 1
        remote.upload(str(tiny_artifact.directory / "enet.so"))
        machine = relax.VirtualMachine(remote.load_module("enet.so"), remote.cpu()).module
        x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
        there = tvm.runtime.tensor(x, remote.cpu())
        time_kernels, keep, output = (
            remote.get_function(name) for name in (names.TIME_KERNELS, names.KEEP_OUTPUTS, names.KERNEL_OUTPUT)
        )
        for _ in range(2):
            assert len(json.loads(str(time_kernels(machine, "main", there, "cpu")))) == 2
            assert len(json.loads(str(keep(machine, "main", there, "cpu")))) == 2
            with pytest.raises(Exception, match="no function other"):
                time_kernels(machine, "other", there, "cpu")
            np.testing.assert_allclose(output(1).numpy(), tiny_artifact.reference(x), rtol=1e-4, atol=1e-4)
            with pytest.raises(Exception, match="no output of a kernel 1 is kept"):
                output(1)
        for function in (time_kernels, keep, output):
            with pytest.raises(Exception, match="expected"):
                function("x")
        (tmp_path / "long").write_text("x" * 100_000)
        assert len(remote.get_function(names.READ_FILE)(str(tmp_path / "long"))) == 100_000
        assert remote.get_function(names.FIND_FILES)(f"{tmp_path}/lon*") == f"{tmp_path}/long"
        assert json.loads(str(remote.get_function(names.FACTS)()))["cpu_features"]
        del machine, there, time_kernels, keep, output, function, remote
        process.terminate()
        assert process.wait(20) == 0
        text = (tmp_path / "log").read_text()
        assert "Sanitizer" not in text
        assert "runtime error" not in text
    finally:
        process.kill()
        process.wait()


def said(path: Path, pattern: str, seconds: float = 20) -> re.Match[str]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := re.search(pattern, path.read_text(errors="replace")):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {pattern!r} in: {path.read_text(errors='replace')}")
