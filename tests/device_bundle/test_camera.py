"""The C runner at a camera: a preloaded fake answers what a V4L2 driver answers, with frames from files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enet_tvm.device_bundle.building import compile_c
from enet_tvm.machine import architecture
from enet_tvm.runtime.overlay import overlay
from enet_tvm.runtime.pictures import load_picture
from enet_tvm.runtime.segmenter import Segmenter

DEVICE = "/dev/video7"

Watch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is preloaded."""
    path = tmp_path_factory.mktemp("driver") / "fake_camera.so"
    compile_c(architecture(), "-shared", "-fPIC", str(Path(__file__).parent / "fake_camera.c"), "-o", str(path))
    return path


@pytest.fixture
def environment(driver: Path, tmp_path: Path) -> dict[str, str]:
    """What makes a program see the camera of the file ``script``."""
    return {**os.environ, "LD_PRELOAD": str(driver), "FAKE_CAMERA": DEVICE, "FAKE_CAMERA_SCRIPT": str(tmp_path / "script")}


@pytest.fixture
def watch(enet_run: Any, tiny_artifact: Any, environment: dict[str, str], tmp_path: Path) -> Watch:
    """Runs the runner at a camera with these lines of a script."""

    def run(script: Sequence[str], *options: object, artifact: Path | None = None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script").write_text("\n".join(script) + "\n")
        result: subprocess.CompletedProcess[str] = enet_run(
            "--camera", DEVICE, *options, artifact or tiny_artifact.directory, environment=environment
        )
        assert "fake camera" not in result.stderr
        return result

    return run


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result
    (line,) = result.stderr.splitlines()
    assert line.startswith("enet-run: error: ")
    for word in words:
        assert word in line


def street(seed: int, width: int = 40, height: int = 24) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpegs(folder: Path, count: int, **options: Any) -> list[Path]:
    paths = [folder / f"{seed}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        street(seed).save(path, quality=90, **options)
    return paths


def without_tables(path: Path) -> None:
    """Take the Huffman tables out of a JPEG picture, as many cameras do."""
    data = path.read_bytes()
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != 0xC4:
            kept += data[at:end]
        at = end
    path.write_bytes(kept + data[at:])


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("tables", [True, False])
def test_frames_are_segmented_as_pictures_are(watch: Watch, tiny_artifact: Any, tmp_path: Path, tables: bool) -> None:
    frames = jpegs(tmp_path, 3)
    with Segmenter.load(tiny_artifact.directory, 1) as segmenter:
        pictures = [load_picture(frame) for frame in frames]
        labels = [segmenter.segment(picture) for picture in pictures]
        palette = segmenter.manifest.palette
    if not tables:
        for frame in frames:
            without_tables(frame)
    script = ["period 60", "format MJPG 40x24", *(f"frame {frame}" for frame in frames), "again"]
    options = (
        "--labels",
        tmp_path / "100%-labels-%d.png",
        "--overlay",
        tmp_path / "seen-%03d.ppm",
        "--json",
        tmp_path / "figures.json",
    )
    result = watch(script, "--frames", 6, *options)
    assert result.returncode == 0, result
    assert result.stderr == ""
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["camera"], figures["size"], figures["format"], figures["frames"]) == (DEVICE, "40x24", "MJPEG", 6)
    seen = []
    for number in range(1, 7):
        found = np.asarray(Image.open(tmp_path / f"100%-labels-{number}.png"))
        (index,) = [i for i in range(3) if np.array_equal(labels[i], found)]
        expected = overlay(pictures[index], labels[index], palette)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"seen-{number:03}.ppm")), np.asarray(expected))
        seen.append(index)
    steps = np.diff(seen) % 3
    if figures["dropped"] == 0:  # another program may have had the processor
        assert (steps == 1).all()
    assert not list(tmp_path.glob("*.part"))


def test_figures(watch: Watch, tmp_path: Path) -> None:
    (frame,) = jpegs(tmp_path, 1)
    script = ["period 20", "format MJPG 40x24", f"frame {frame}", "miss", "again"]
    result = watch(script, "--frames", 8, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames"] == 8
    assert figures["dropped"] >= 7
    assert figures["damaged"] == 0
    assert figures["seconds"] > 0.2
    assert figures["frames_per_second"] == pytest.approx(8 / figures["seconds"], rel=1e-4)
    for name in ("latency_ms", "input_ms", "network_ms", "results_ms"):
        assert 0 < figures[name]["p50"] <= figures[name]["p90"] <= figures[name]["p99"]
    assert figures["latency_ms"]["p50"] > figures["network_ms"]["p50"]
    for words in ("8 frames", f"{figures['dropped']} dropped", f"latency p50 {figures['latency_ms']['p50']:.1f} ms"):
        assert words in result.stdout


def yuyv(picture: Image.Image, stride: int, full: bool, bt709: bool) -> tuple[bytes, np.ndarray]:
    """Return a frame, and the picture that it is by the standards' equations: ITU-R BT.601-7 2.5 and BT.709-6 3.4."""
    red, blue = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    rgb = np.asarray(picture, np.float64)
    y = rgb @ [red, 1 - red - blue, blue]
    u, v = (rgb[..., 2] - y) / (2 * (1 - blue)), (rgb[..., 0] - y) / (2 * (1 - red))
    u, v = (c.reshape(len(c), -1, 2).mean(axis=2) for c in (u, v))
    y8 = np.rint(y if full else y * 219 / 255 + 16)
    u8, v8 = (np.rint(c * (1 if full else 224 / 255) + 128) for c in (u, v))
    rows = np.zeros((len(y), stride), np.uint8)
    for place, values in ((0, y8[:, ::2]), (1, u8), (2, y8[:, 1::2]), (3, v8)):
        rows[:, place : 2 * y.shape[1] : 4] = values.clip(0, 255)
    back = y8 if full else (y8 - 16) * 255 / 219
    cu, cv = ((np.repeat(c, 2, axis=1) - 128) * (1 if full else 255 / 224) for c in (u8, v8))
    r, b = back + 2 * (1 - red) * cv, back + 2 * (1 - blue) * cu
    g = (back - red * r - blue * b) / (1 - red - blue)
    return rows.tobytes(), np.stack([r, g, b], axis=-1).clip(0, 255)


@pytest.mark.parametrize(
    ("full", "bt709", "stride"), [(False, False, 80), (True, False, 80), (False, True, 96), (True, True, 81)]
)
def test_yuyv(watch: Watch, tmp_path: Path, full: bool, bt709: bool, stride: int) -> None:
    content, expected = yuyv(street(1), stride, full, bt709)
    (tmp_path / "frame").write_bytes(content)
    said = [*(["full"] if full else []), *(["bt709"] if bt709 else [])]
    script = ["format YUYV 40x24", f"stride {stride}", *said, f"frame {tmp_path / 'frame'}"]
    result = watch(script, "--frames", 1, "--overlay", tmp_path / "seen.ppm", "--opacity", 0)
    assert result.returncode == 0, result
    assert "40x24 YUYV" in result.stdout
    seen = np.asarray(Image.open(tmp_path / "seen.ppm"), np.float64)
    assert np.abs(seen - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("offers", "options", "chosen"),
    [
        (["format MJPG 1280x720 640x480 20x10"], (), "640x480 MJPEG"),
        (["format MJPG 16x8 20x10"], (), "20x10 MJPEG"),
        (["format MJPG 640x480", "format YUYV 640x480"], (), "640x480 YUYV"),
        (["format MJPG 1280x720", "format YUYV 1280x720"], (), "1280x720 MJPEG"),
        (["format YUYV 1280x720 64x48", "format MJPG 1280x720"], ("--camera-size", "1280x720"), "1280x720 MJPEG"),
        (["format MJPG 1280x720 64x48"], ("--camera-size", "1280x720"), "1280x720 MJPEG"),
        (["format H264 64x48", "format YUYV 64x48"], (), "64x48 YUYV"),
        (["range YUYV 16x16 640x480 16"], (), "32x16 YUYV"),
        (["range YUYV 16x16 640x480 16"], ("--camera-size", "320x240"), "320x240 YUYV"),
        (["format JPEG 64x48"], (), "64x48 MJPEG"),
    ],
)
def test_size_and_format(watch: Watch, tmp_path: Path, offers: list[str], options: tuple[str, ...], chosen: str) -> None:
    size, kind = chosen.split()
    width, height = map(int, size.split("x"))
    frame = tmp_path / "frame"
    if kind == "YUYV":
        frame.write_bytes(bytes(2 * width * height))
    else:
        street(0, width, height).save(frame, "JPEG")
    result = watch([*offers, f"frame {frame}"], "--frames", 1, *options)
    assert result.returncode == 0, result
    assert f"camera {DEVICE}, {chosen}: 1 frames" in result.stdout


def test_what_is_no_camera(enet_run: Any, watch: Watch, tiny_artifact: Any, tiny_artifact_of_two: Any, tmp_path: Path) -> None:
    refused(enet_run("--camera", "/dev/video98", tiny_artifact.directory), "there is no camera /dev/video98; this machine has")
    refused(enet_run("--camera", "98", tiny_artifact.directory), "there is no camera /dev/video98")
    (tmp_path / "file").write_bytes(b"x")
    refused(enet_run("--camera", tmp_path / "file", tiny_artifact.directory), "is not a camera")
    refused(enet_run("--camera", "/dev/null", tiny_artifact.directory), "/dev/null is not a camera")
    refused(watch(["output"]), "gives no pictures", "Fake camera")
    refused(watch(["unstreamed", "format MJPG 64x48"]), "cannot stream")
    refused(watch(["format H264 64x48", "format BA81 64x48"]), "offers H264, BA81, and MJPEG and YUYV are read")
    refused(watch([]), "offers no format")
    refused(watch(["busy", "format MJPG 64x48"]), "in use by another program", "busy")
    refused(watch(["format MJPG 64x48"], "--camera-size", "64x47"), "no frames of 64x47", "--camera-size")
    refused(watch(["range YUYV 16x16 640x480 16"], "--camera-size", "8x8"), "no frames of 8x8", "--camera-size")
    refused(watch(["format MJPG 64x48"], artifact=tiny_artifact_of_two.directory), "takes 2 pictures at once")


def test_options_that_do_not_fit(enet_run: Any, tiny_artifact: Any) -> None:
    artifact = tiny_artifact.directory
    refused(enet_run("--camera", 0, artifact, "x.png"), "either x.png or what the camera sees")
    refused(enet_run("--camera", 0, "--logits", "y.npy", artifact), "not for a camera")
    refused(enet_run("--camera", 0, "--runs", 3, artifact), "not for a camera")
    refused(enet_run("--frames", 3, artifact), "give --camera DEVICE too")
    refused(enet_run("--camera-size", "64x48", artifact), "give --camera DEVICE too")
    for size in ("64", "64x", "0x48", "64x48x2", "axb", "99999x2"):
        refused(enet_run("--camera", 0, "--camera-size", size, artifact), f"--camera-size is {size}", "1280x720")
    refused(enet_run("--camera", 0, "--frames", 0, artifact), "--frames is 0")


def test_a_camera_that_is_unplugged(watch: Watch, tmp_path: Path) -> None:
    frames = jpegs(tmp_path, 2)
    script = ["period 50", "format MJPG 40x24", *(f"frame {frame}" for frame in frames), "unplug"]
    result = watch(script, "--overlay", tmp_path / "seen.png", "--json", tmp_path / "figures.json")
    refused(result, f"camera {DEVICE} is gone (No such device)")
    count = json.loads((tmp_path / "figures.json").read_text())["frames"]
    assert 1 <= count <= 2
    assert f"{count} frames" in result.stdout
    assert Image.open(tmp_path / "seen.png").size == (40, 24)
    refused(watch(["format MJPG 40x24", "unplug"], "--json", tmp_path / "none.json"), "is gone")
    assert not (tmp_path / "none.json").exists()


def test_frames_that_are_damaged(watch: Watch, tmp_path: Path) -> None:
    good, other = jpegs(tmp_path, 2)
    data = good.read_bytes()
    damaged = {
        "empty": b"",
        "two bytes": data[:2],
        "half": data[: len(data) // 2],
        "noise": np.random.default_rng(0).bytes(1000),
        "zeros": bytes(500),
        "another size": b"\xff\xd8\xff\xe0\xff\xff",
    }
    script = ["period 30", "format MJPG 40x24"]
    for name, content in damaged.items():
        path = tmp_path / name.replace(" ", "-")
        path.write_bytes(content)
        script += [f"frame {path}"]
    (tmp_path / "padded.jpg").write_bytes(data + bytes(300))  # up to the size of the buffer, as some cameras do
    script += [f"broken {other}", f"frame {tmp_path / 'padded.jpg'}", "again"]
    result = watch(
        script, "--frames", 2, "--overlay", tmp_path / "seen.png", "--opacity", 0, "--json", tmp_path / "figures.json"
    )
    assert result.returncode == 0, result
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames"] == 2
    assert figures["damaged"] + figures["dropped"] >= len(damaged) + 1
    assert figures["damaged"] > 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "seen.png")), np.asarray(load_picture(good)))


def test_a_frame_that_is_short(watch: Watch, tmp_path: Path) -> None:
    content, _ = yuyv(street(0), 80, False, False)
    (tmp_path / "short").write_bytes(content[:-1])
    (tmp_path / "whole").write_bytes(content)
    script = ["period 50", "format YUYV 40x24", f"frame {tmp_path / 'short'}", f"frame {tmp_path / 'whole'}"]
    result = watch(script, "--frames", 1, "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result
    assert json.loads((tmp_path / "figures.json").read_text())["damaged"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("script", [[], ["frame {path}", "again"]], ids=["silence", "noise"])
def test_a_camera_of_which_nothing_can_be_read(watch: Watch, tmp_path: Path, script: list[str]) -> None:
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(1000))
    begun = time.monotonic()
    result = watch(["period 100", "format MJPG 40x24", *(line.format(path=tmp_path / "noise") for line in script)])
    refused(
        result, "gave no frame that can be read for 10 seconds", *(["(/dev/video7 cannot be read as a JPEG"] if script else [])
    )
    assert 9 < time.monotonic() - begun < 30


def test_a_slow_reader_sees_the_newest(watch: Watch, tmp_path: Path) -> None:
    """Frames that come faster than the network and its files are dropped, and what is shown is never an old one."""
    paths = []
    for grey in range(0, 200, 2):
        path = tmp_path / f"{grey}.yuyv"
        path.write_bytes(bytes([grey + 16, 128]) * (640 * 480))
        paths.append(path)
    script = ["period 4", "format YUYV 640x480", *(f"frame {path}" for path in paths), "again"]
    options = ("--overlay", tmp_path / "seen-%d.png", "--opacity", 0, "--json", tmp_path / "figures.json")
    result = watch(script, "--frames", 5, *options)
    assert result.returncode == 0, result
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["dropped"] >= 5
    assert len({np.asarray(Image.open(tmp_path / f"seen-{number}.png"))[0, 0, 0] for number in range(1, 6)}) == 5


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ends_when_told(
    board: Any, tiny_artifact: Any, environment: dict[str, str], tmp_path: Path, sent: signal.Signals
) -> None:
    (frame,) = jpegs(tmp_path, 1)
    (tmp_path / "script").write_text(f"format MJPG 40x24\nframe {frame}\nagain\n")
    command = [str(board.folder / "bin/enet-run"), "--camera", DEVICE, "--overlay", str(tmp_path / "seen.png")]
    process = subprocess.Popen(
        [*command, str(tiny_artifact.directory)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "seen.png").exists() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(sent)
        printed, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert errors == ""
    assert "frames, " in printed
    assert Image.open(tmp_path / "seen.png").size == (40, 24)
    assert not list(tmp_path.glob("*.part"))


def test_a_stream_of_pictures(enet_run: Any, tiny_artifact: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """Into a pipe go pictures, one behind the other, as `ffplay -f image2pipe` takes them, and the figures elsewhere."""
    (frame,) = jpegs(tmp_path, 1)
    (tmp_path / "script").write_text(f"format MJPG 40x24\nframe {frame}\nagain\n")
    with (tmp_path / "stream").open("wb") as stream:
        options = ("--camera", DEVICE, "--frames", 3, "--overlay", "/dev/stdout", "--opacity", 0)
        result = enet_run(*options, tiny_artifact.directory, environment=environment, stdout=stream)
    assert result.returncode == 0, result
    assert "3 frames" in result.stderr
    pixels = np.asarray(load_picture(frame)).tobytes()
    assert (tmp_path / "stream").read_bytes() == 3 * (b"P6\n40 24\n255\n" + pixels)


def test_an_output_that_cannot_be_written(watch: Watch, tmp_path: Path) -> None:
    (frame,) = jpegs(tmp_path, 1)
    script = ["format MJPG 40x24", f"frame {frame}", "again"]
    refused(watch(script, "--frames", 2, "--overlay", tmp_path / "missing" / "seen.png"), "cannot write")


@pytest.mark.slow
def test_under_sanitisers(
    sanitised_programs: Callable[[str], Path], tiny_artifact: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    """Good frames, damaged ones and a camera that goes, in the program as it is."""
    good = jpegs(tmp_path, 3)
    dice = np.random.default_rng(5)
    script = ["period 5", "format MJPG 40x24"]
    for number in range(60):
        data = bytearray(good[number % 3].read_bytes())
        for _ in range(number % 4):
            data[dice.integers(len(data))] = dice.integers(256)
        path = tmp_path / f"frame-{number}"
        path.write_bytes(data[: dice.integers(len(data)) if number % 5 == 4 else None])
        script.append(f"frame {path}")
    (tmp_path / "script").write_text("\n".join([*script, "unplug"]) + "\n")
    variables = {"ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [sanitised_programs("enet-run"), "--camera", DEVICE, "--overlay", tmp_path / "seen.png", tiny_artifact.directory]
    result = subprocess.run(
        [str(word) for word in command],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    refused(result, "is gone")
    assert " frames, " in result.stdout
