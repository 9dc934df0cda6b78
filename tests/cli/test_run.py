from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import noise, picture, read_video, served, spoil_frames, write_video

from enet_tvm.cli import main as cli
from enet_tvm.machine import default_threads, usable_cpus
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.pictures import load_picture

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_artifact) -> Run:
    monkeypatch.setattr(cli, "VERBS", ("run",))

    def call(*arguments: object, artifact: Path = tiny_artifact.directory) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", str(artifact), *map(str, arguments)])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of every sort: sizes, modes, a rotation, a sub-folder."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    (folder / "night").mkdir(parents=True)
    colour = Image.fromarray(random.integers(0, 256, (30, 50, 3), np.uint8))
    colour.save(folder / "colour.jpg")
    colour.convert("L").save(folder / "grey.png")
    colour.convert("RGBA").resize((7, 90)).save(folder / "night" / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "turned.jpg", exif=exif)
    return folder


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_overlays_of_a_folder(run: Run, folder: Path, tmp_path: Path):
    out = tmp_path / "new" / "out"
    code, stdout, _ = run(folder, "-o", out)
    assert code == 0
    assert listing(out) == {"colour.png", "grey.png", "turned.png", "night/alpha.png"}
    for source in folder.rglob("*.*"):
        result = Image.open(out / source.relative_to(folder).with_suffix(".png"))
        assert result.size == load_picture(source).size
        assert result.mode == "RGB"
    assert Image.open(out / "turned.png").size == (30, 50)
    assert "4 overlays in" in stdout
    assert "ms in the network" in stdout


@pytest.mark.parametrize("shape", ["rle", "polygons"])
def test_regions_cover_the_picture(run: Run, folder: Path, tmp_path: Path, shape: str):
    code, _, _ = run(folder / "colour.jpg", "-o", tmp_path, "--json", tmp_path / "r.json", "--regions", shape)
    assert code == 0
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert sum(region["area"] for region in result["regions"]) == 50 * 30
    assert {region["class"] for region in result["regions"]} == result["shares"].keys()
    kinds = {type(region["segmentation"]) for region in result["regions"]}
    assert kinds == {dict if shape == "rle" else list}


def test_regions_need_a_file_and_pictures(run: Run, folder: Path, tmp_path: Path):
    code, _, stderr = run(folder, "-o", tmp_path / "out", "--regions", "rle")
    assert (code, "give --json FILE too" in stderr) == (2, True)
    code, _, stderr = run(folder, "-o", tmp_path / "out.mp4", "--regions", "rle", "--json", tmp_path / "r.json")
    assert (code, "--regions is for pictures" in stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_summary_names_the_cores(run: Run, folder: Path, tmp_path: Path, spoilt_artifact: Path):
    manifest = json.loads((spoilt_artifact / "manifest.json").read_text())
    manifest["target"]["core_list"] = [last := usable_cpus()[-1]]
    (spoilt_artifact / "manifest.json").write_text(json.dumps(manifest))
    arguments = (folder / "colour.jpg", "-o", tmp_path / "out", "--json", tmp_path / "f.json")
    code, stdout, _ = run(*arguments, artifact=spoilt_artifact)
    assert code == 0
    assert f", 1 threads on cores {last})" in stdout
    assert json.loads((tmp_path / "f.json").read_text())["cores"] == f"cores {last}"


def test_labels_and_figures(run: Run, folder: Path, tmp_path: Path, tiny_artifact):
    out = tmp_path / "out"
    code, _, _ = run(
        folder / "colour.jpg", folder / "night", "-o", out, "--labels", "--threads", 1, "--json", tmp_path / "f.json"
    )
    assert code == 0
    assert listing(out) == {"colour.png", "colour_labels.png", "alpha.png", "alpha_labels.png"}
    labels = Image.open(out / "colour_labels.png")
    assert labels.mode == "L"
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        np.testing.assert_array_equal(np.asarray(labels), segmenter.segment(load_picture(folder / "colour.jpg")))
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["pictures"], figures["failed"], figures["threads"], figures["size"]) == (2, 0, 1, "24x16")
    assert figures["processors"] == str(default_threads())
    assert [result["threads"] for result in figures["results"]] == [1, 1]
    assert 0 < figures["median_network_ms"] < figures["median_total_ms"]
    assert [result["size"] for result in figures["results"]] == ["50x30", "7x90"]
    assert sum(figures["results"][0]["shares"].values()) == pytest.approx(1)


def test_opacity_zero_leaves_the_picture(run: Run, folder: Path, tmp_path: Path):
    run(folder / "night" / "alpha.png", "-o", tmp_path / "out", "--opacity", 0)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "out" / "alpha.png")), np.asarray(load_picture(folder / "night" / "alpha.png"))
    )


def test_results_inside_the_folder_are_not_taken_for_pictures(run: Run, folder: Path):
    for _ in range(2):
        assert run(folder, "-o", folder / "out")[0] == 0
    assert listing(folder / "out") == {"colour.png", "grey.png", "turned.png", "night/alpha.png"}


def test_a_broken_picture_does_not_stop_the_others(run: Run, folder: Path, tmp_path: Path):
    (folder / "broken.jpg").write_bytes((folder / "colour.jpg").read_bytes()[:300])
    (folder / "text.png").write_text("[bold]no picture[/bold]")
    code, stdout, stderr = run(folder, "-o", tmp_path / "out", "--json", tmp_path / "f.json")
    assert code == 2
    assert listing(tmp_path / "out") == {"colour.png", "grey.png", "turned.png", "night/alpha.png"}
    assert stderr.count("error: ") == 2
    assert f"error: {folder / 'broken.jpg'} cannot be read as a picture" in stderr
    assert f"error: {folder / 'text.png'} is not a picture of a known format" in stderr
    assert "2 of 6 pictures could not be read" in stderr
    assert "4 overlays in" in stdout
    assert [bool(result.get("error")) for result in json.loads((tmp_path / "f.json").read_text())["results"]].count(True) == 2


def test_frames_of_an_animation_are_pictures(run: Run, folder: Path, tmp_path: Path, tiny_artifact):
    """Their results are numbered beside a still picture that is called like one of them."""
    frames = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 50, 3), np.uint8)) for i in range(3)]
    frames[0].save(folder / "clip.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(folder / "colour.tif", save_all=True, append_images=frames[1:2])
    frames[0].save(folder / "colour_0002.png")
    out = tmp_path / "out"
    code, stdout, _ = run(folder, "-o", out, "--labels", "--opacity", 0, "--json", tmp_path / "f.json")
    assert code == 0
    assert "10 overlays in" in stdout
    clip, pages = [f"clip_000{n}" for n in (1, 2, 3)], [f"colour_tif_000{n}" for n in (1, 2)]
    stills = ["colour", "colour_0002", "grey", "turned", "night/alpha"]
    assert listing(out) == {f"{name}{end}.png" for name in clip + pages + stills for end in ("", "_labels")}
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        for name, frame in zip(clip, frames, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(out / f"{name}.png")), np.asarray(frame))
            np.testing.assert_array_equal(np.asarray(Image.open(out / f"{name}_labels.png")), segmenter.segment(frame))
    results = json.loads((tmp_path / "f.json").read_text())["results"]
    numbers = [(Path(result["picture"]).name, result["frame"]) for result in results]
    assert numbers[:3] == [("clip.webp", 1), ("clip.webp", 2), ("clip.webp", 3)]
    assert ("colour.jpg", None) in numbers


def test_frames_are_not_written_over_a_picture(run: Run, tmp_path: Path):
    """A given picture that lies where a frame's overlay would go stays as it is."""
    out = tmp_path / "out"
    (out / "night").mkdir(parents=True)
    (tmp_path / "in" / "night").mkdir(parents=True)
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "in" / "night" / "clip.gif", save_all=True, append_images=frames[1:])
    frames[0].save(out / "night" / "clip_0001.png")
    before = (out / "night" / "clip_0001.png").read_bytes()
    assert run(tmp_path / "in", out / "night" / "clip_0001.png", "-o", out)[0] == 0
    assert (out / "night" / "clip_0001.png").read_bytes() == before
    assert listing(out) == {"night/clip_0001.png", "night/clip_frame_0001.png", "night/clip_frame_0002.png", "clip_0001.png"}


def test_a_frame_that_is_damaged(run: Run, folder: Path, tmp_path: Path):
    frames = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 50, 3), np.uint8)) for i in range(3)]
    frames[0].save(folder / "clip.png", save_all=True, append_images=frames[1:])
    content = (folder / "clip.png").read_bytes()
    (folder / "clip.png").write_bytes(content[: content.rindex(b"fdAT") + 100])
    code, _, stderr = run(folder / "clip.png", folder / "grey.png", "-o", tmp_path / "out", "--json", tmp_path / "f.json")
    assert code == 2
    assert listing(tmp_path / "out") == {"clip_0001.png", "clip_0002.png", "grey.png"}
    assert f"error: {folder / 'clip.png'} cannot be read as a picture" in stderr
    results = json.loads((tmp_path / "f.json").read_text())["results"]
    assert [(result["frame"], "error" in result) for result in results] == [(1, False), (2, False), (3, True), (None, False)]


def test_only_broken_pictures(run: Run, tmp_path: Path):
    (tmp_path / "text.png").write_text("no picture")
    code, stdout, stderr = run(tmp_path / "text.png", "-o", tmp_path / "out")
    assert (code, stdout) == (2, "")
    assert "1 of 1 pictures could not be read" in stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{folder}/absent.jpg", "-o", "{out}"], "there is no file or folder"),
        (["{empty}", "-o", "{out}"], "holds no pictures"),
        (["{folder}", "-o", "{folder}/grey.png"], "cannot write"),
        (["{folder}", "-o", "/proc/out"], "cannot write"),
        (["{folder}", "-o", "{out}", "--opacity", "2"], "opacity 2 is not between 0 and 1"),
        (["{folder}", "-o", "{out}", "--threads", "0"], "cannot use 0 threads"),
        (["{folder}", "-o", "{out}", "--threads", "many"], "Invalid value for '--threads'"),
        (["{folder}"], "Missing option '--output'"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    run: Run, folder: Path, tmp_path: Path, arguments: list[str], sentence: str
):
    (tmp_path / "empty").mkdir()
    before = listing(tmp_path)
    code, stdout, stderr = run(
        *[argument.format(folder=folder, out=tmp_path / "out", empty=tmp_path / "empty") for argument in arguments]
    )
    assert (code, stdout) == (2, "")
    assert sentence in stderr
    assert stderr.count("\n") == 1
    assert listing(tmp_path) == before


def test_what_is_no_artifact_is_refused(run: Run, folder: Path, spoilt_artifact: Path, tmp_path: Path):
    library = spoilt_artifact / "enet.so"
    library.write_bytes(library.read_bytes()[:-100])
    for artifact, sentence in ((spoilt_artifact, "truncated or edited"), (folder, "is not an artifact")):
        code, _, stderr = run(folder, "-o", tmp_path / "out", artifact=artifact)
        assert code == 2
        assert sentence in stderr
    assert not (tmp_path / "out").exists()


def test_a_quota_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.setattr("enet_tvm.machine.cpu_quota", lambda _root: 1.0)
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    code, out, _ = run(tmp_path / "a.png", "-o", tmp_path / "out")
    assert code == 0
    if len(usable_cpus()) > 1:
        assert f"threads: {default_threads()}" in out.splitlines()
        assert "the CPU quota of 1 of its control group" in out


def test_a_bad_number_of_threads_in_the_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "all")
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    code, _, err = run(tmp_path / "a.png", "-o", tmp_path / "out")
    assert code == 2
    assert "TVM_NUM_THREADS is 'all' and must be a number from 1 to 1024" in err
    assert not (tmp_path / "out").exists()


def test_a_video(run: Run, tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", 12, tone=1.0)
    code, stdout, stderr = run(
        ride, "-o", tmp_path / "out.mp4", "--json", tmp_path / "f.json", "--threads", 1, "--seconds", 0.5
    )
    assert (code, stderr) == (0, "")
    assert len(read_video(tmp_path / "out.mp4")[0]) == 6
    for stage in ("source", "preprocess", "network", "overlay", "encode", "p50", "p99"):
        assert stage in stdout
    assert f"6 frames of {ride} (64x48) in {tmp_path / 'out.mp4'}: " in stdout
    assert "of the network alone" in stdout
    assert "0 frames dropped, sound: copied" in stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["frames"], figures["dropped"], figures["error"]) == (6, 0, None)


def test_a_folder_as_a_video_or_as_pictures(run: Run, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(picture(index)).save(tmp_path / "in" / f"{index}.png")
    assert run(tmp_path / "in", "-o", tmp_path / "out.mkv", "--rate", 10)[0] == 0
    assert read_video(tmp_path / "out.mkv")[0] == [0, 0.1, 0.2]
    assert run(tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert listing(tmp_path / "out") == {"0.png", "1.png", "2.png"}


def test_a_camera_in_the_place_of_which_a_server_stands(run: Run, tmp_path: Path):
    content = write_video(tmp_path / "a.ts", 40, rate=20).read_bytes()
    with served(content, live=True) as address:
        code, stdout, _ = run("--camera", address, "-o", tmp_path / "out.mp4", "--seconds", 1)
    assert code == 0
    assert "frames dropped" in stdout
    seconds = read_video(tmp_path / "out.mp4")[0]
    assert 0 <= seconds[0] <= seconds[-1] < 1


def test_broken_frames_are_told_and_the_code_says_so(run: Run, tmp_path: Path):
    ride = spoil_frames(write_video(tmp_path / "ride.mp4", 12, group=1), 3)
    code, stdout, stderr = run(ride, "-o", tmp_path / "out.mp4")
    assert (code, stderr) == (2, "1 frames could not be decoded and were left out\n")
    assert "11 frames of" in stdout
    assert len(read_video(tmp_path / "out.mp4")[0]) == 11


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, tiny_artifact, number: signal.Signals):
    ride = write_video(tmp_path / "ride.mp4", [noise(index, 160, 96) for index in range(24)] * 30, rate=60)
    command = [
        sys.executable,
        "-m",
        "enet_tvm",
        "run",
        str(tiny_artifact.directory),
        str(ride),
        "-o",
        str(tmp_path / "out.mp4"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in tmp_path.glob(".out-*.mp4")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert stderr == f"interrupted: {tmp_path / 'out.mp4'} can be played as far as it goes\n"
    assert process.returncode == 130
    assert 10 < len(read_video(tmp_path / "out.mp4")[0]) < 720
    assert listing(tmp_path) == {"ride.mp4", "out.mp4"}


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path, tiny_artifact):
    ride = write_video(tmp_path / "ride.mp4", [noise(index, 160, 96) for index in range(24)] * 10)
    command = [
        sys.executable,
        "-m",
        "enet_tvm",
        "run",
        str(tiny_artifact.directory),
        str(ride),
        "-o",
        str(tmp_path / "out.mp4"),
    ]
    limits = (resource.RLIMIT_FSIZE, (300_000, 300_000))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, preexec_fn=lambda: resource.setrlimit(*limits)
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'out.mp4'}: ")
    assert done.stderr.endswith("out.mp4 can be played as far as it goes\n")
    assert done.stderr.count("\n") == 1
    assert 5 < len(read_video(tmp_path / "out.mp4")[0]) < 240
    assert listing(tmp_path) == {"ride.mp4", "out.mp4"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{ride}", "-o", "{out}"], "is no video that can be written; give a name that ends in .mp4"),
        (["{ride}", "{ride}", "-o", "{out}.mp4"], "made of one source, not 2"),
        (["{ride}", "-o", "{out}.mp4", "--labels"], "--labels is for pictures"),
        (["{ride}", "-o", "{out}.mp4", "--rate", "5"], "has its own times"),
        (["{ride}", "-o", "{out}.mp4", "--opacity", "2"], "opacity 2 is not between 0 and 1"),
        (["{ride}", "-o", "{out}.mp4", "--threads", "0"], "cannot use 0 threads"),
        (["{ride}", "-o", "{out}.mp4", "--seconds", "0"], "Invalid value for '--seconds'"),
        (["{ride}", "-o", "/proc/out.mp4"], "cannot write"),
        (["{ride}x.mp4", "-o", "{out}.mp4"], "there is no file"),
        (["{text}", "-o", "{out}.mp4"], "cannot open"),
        (["-o", "{out}.mp4"], "there is nothing to make a video of"),
        (["-o", "{out}"], "no pictures were given"),
        (["--camera", "96", "-o", "{out}.mp4"], "there is no camera /dev/video96"),
        (["--camera", "96", "{ride}", "-o", "{out}.mp4"], "two sources"),
        (["--camera", "96", "-o", "{out}.mp4", "--camera-size", "big"], "'big' is not a size"),
        (["rtsp://127.0.0.1:1/x", "-o", "{out}.mp4"], "cannot open rtsp://127.0.0.1:1/x"),
    ],
)
def test_a_bad_video_is_one_sentence_and_nothing_is_written(run: Run, tmp_path: Path, arguments: list[str], sentence: str):
    ride, text = write_video(tmp_path / "ride.mp4", 3), tmp_path / "text.mp4"
    text.write_text("no video")
    code, stdout, stderr = run(*[argument.format(ride=ride, text=text, out=tmp_path / "out") for argument in arguments])
    assert (code, stdout) == (2, "")
    assert sentence in stderr
    assert stderr.count("\n") == 1
    assert listing(tmp_path) == {"ride.mp4", "text.mp4"}
