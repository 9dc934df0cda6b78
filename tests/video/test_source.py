from __future__ import annotations

import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import noise, picture, served, spoil_frames, write_video

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video import source as module
from enet_tvm.video.source import VideoSource, is_video, open_camera, open_file, open_folder


def all_of(source: VideoSource) -> list[tuple[float, np.ndarray]]:
    try:
        return [(round(frame.seconds, 3), frame.rgb()) for frame in source]
    finally:
        source.close()


@pytest.mark.parametrize("name", ["ride.mp4", "ride.mkv", "ride.ts", "ride.MOV", "with space ä.mp4"])
def test_all_frames_in_order(tmp_path: Path, name: str):
    source = open_file(write_video(tmp_path / name))
    assert (source.size, source.live, round(source.rate)) == (Size(64, 48), False, 12)
    frames = all_of(source)
    first = frames[0][0]
    assert [seconds - first for seconds, _ in frames] == pytest.approx([index / 12 for index in range(12)], abs=2e-3)
    for index, (_, pixels) in enumerate(frames):
        assert np.abs(pixels.astype(int) - picture(index)).mean() < 8
    assert source.broken == 0


def test_variable_times_are_kept(tmp_path: Path):
    times = [0, 50, 400, 410, 3000]
    assert [seconds for seconds, _ in all_of(open_file(write_video(tmp_path / "a.mp4", 5, times=times)))] == [
        milliseconds / 1000 for milliseconds in times
    ]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_telephones_video_is_turned_upright(tmp_path: Path, rotation: int):
    source = open_file(write_video(tmp_path / "a.mp4", 3, rotation=rotation))
    assert source.size == (Size(64, 48) if rotation == 180 else Size(48, 64))
    # A display rotation is counter-clockwise, and so is numpy's.
    upright = np.rot90(picture(1), rotation // 90)
    assert np.abs(all_of(source)[1][1].astype(int) - upright).mean() < 8


def test_odd_sizes_lose_their_last_row_and_column(tmp_path: Path):
    source = open_file(write_video(tmp_path / "a.mkv", [picture(1, 65, 49)] * 2, codec="ffv1", pixels="yuv444p"))
    assert source.size == Size(64, 48)
    for _, pixels in all_of(source):
        assert np.abs(pixels.astype(int) - picture(1, 65, 49)[:48, :64]).mean() < 8


def test_other_pixels_than_yuv420(tmp_path: Path):
    source = open_file(write_video(tmp_path / "a.mkv", 2, codec="ffv1", pixels="gray"))
    assert np.ptp(all_of(source)[0][1], axis=2).max() <= 2


def test_a_bare_stream_gets_times(tmp_path: Path):
    source = open_file(write_video(tmp_path / "a.h264", 8, kind="h264"))
    assert [seconds for seconds, _ in all_of(source)] == [
        pytest.approx(float(index / source.rate), abs=1e-3) for index in range(8)
    ]


def test_sound_is_handed_over(tmp_path: Path):
    source = open_file(write_video(tmp_path / "a.mp4", tone=1.0))
    assert source.audio is not None
    packets = []
    for _ in source:
        packets += source.take_audio()
    packets += source.take_audio()
    assert len(packets) >= 15
    assert source.take_audio() == []
    source.close()


def test_the_first_seconds(tmp_path: Path):
    source = open_file(write_video(tmp_path / "a.mp4", 24)).first(0.5)
    assert source.expected == 6
    assert len(all_of(source)) == 6


def test_a_broken_frame_is_left_out_and_counted(tmp_path: Path):
    path = spoil_frames(write_video(tmp_path / "a.mp4", 30, group=1), 15)
    source = open_file(path)
    seconds = [seconds for seconds, _ in all_of(source)]
    assert source.broken == 1
    assert len(seconds) == 29
    assert seconds[-1] == pytest.approx(29 / 12, abs=2e-3)


@pytest.mark.parametrize(("name", "options"), [("a.mp4", {"movflags": "+faststart"}), ("a.mkv", {})])
def test_a_truncated_file_gives_what_is_there_and_says_so(tmp_path: Path, name: str, options: dict[str, str]):
    path = write_video(tmp_path / name, [noise(index) for index in range(24)], rate=4, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    source, frames = open_file(path), []
    with pytest.raises(UserError, match=r"a\.m.. ends after \d\.\d of 6\.0 seconds; is it a whole video file"):
        frames.extend(source)
    source.close()
    assert 4 < len(frames) < 24


def test_files_that_are_no_videos(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    write_video(tmp_path / "sound.mp4", tone=0.5)
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "no-index.mp4").write_bytes(whole[: len(whole) // 2])
    sentences = {
        "absent.mp4": "there is no file",
        "text.mp4": "cannot open .* is it a whole video file",
        "empty.mp4": "cannot open",
        "no-index.mp4": "cannot open",
    }
    for name, sentence in sentences.items():
        with pytest.raises(UserError, match=sentence):
            open_file(tmp_path / name)


def test_a_video_without_frames_or_pictures(tmp_path: Path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        part.sample_rate = 16000
        container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="holds no video"):
        open_file(path)
    path = spoil_frames(write_video(tmp_path / "none.mp4", 3), 0, 1, 2)
    with pytest.raises(UserError, match="holds no frame that can be decoded"):
        open_file(path)


def test_a_folder_in_the_order_of_names(tmp_path: Path):
    for index in (2, 0, 1):
        Image.fromarray(picture(index, 33, 21)).save(tmp_path / f"{index}.png")
    source = open_folder(tmp_path, Fraction(5))
    assert (source.size, source.frames, source.audio) == (Size(32, 20), 3, None)
    frames = all_of(source)
    assert [seconds for seconds, _ in frames] == [0, 0.2, 0.4]
    for index, (_, pixels) in enumerate(frames):
        assert np.abs(pixels.astype(int) - picture(index, 33, 21)[:20, :32]).mean() < 8


def test_a_folder_of_several_sizes_or_none(tmp_path: Path):
    with pytest.raises(UserError, match="holds no pictures"):
        open_folder(tmp_path)
    Image.fromarray(picture(0, 32, 32)).save(tmp_path / "0.png")
    Image.fromarray(picture(0, 32, 40)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"1\.png is 32x40, but the frames before it are 32x32; bring"):
        all_of(open_folder(tmp_path))


def test_a_camera_that_is_not_there():
    with pytest.raises(UserError, match=r"there is no camera /dev/video97; this machine has "):
        open_camera("97")
    with pytest.raises(UserError, match=r"there is no camera /dev/absent"):
        open_camera("/dev/absent")
    with pytest.raises(UserError, match="is a file, not a camera; give it without --camera"):
        open_camera(__file__)
    with pytest.raises(UserError, match=r"cannot open camera /dev/null \(.*\); check that it is connected"):
        open_camera("/dev/null", Size(640, 360), 30)


def test_a_live_stream(tmp_path: Path):
    content = write_video(tmp_path / "a.ts", 30, rate=30).read_bytes()
    with served(content, live=True) as address:
        source, frames = open_camera(address), []
        assert source.live
        assert source.audio is None
        with pytest.raises(UserError, match=r"ended at frame 30 \(.*\); check that it is connected"):
            frames.extend(source)
        source.close()
    assert len(frames) == 30
    assert frames[0].seconds == 0  # whatever the clock of the camera says


def test_a_file_on_a_web_server_waits_like_one_on_the_disk(tmp_path: Path):
    content = write_video(tmp_path / "a.mp4", tone=1.0).read_bytes()
    with served(content) as address:
        source = open_file(address)
        assert not source.live
        assert source.audio is not None
        assert len(all_of(source)) == 12


def test_a_source_that_falls_silent_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SILENCE", 1.0)
    content = write_video(tmp_path / "a.ts", 60, rate=30).read_bytes()
    with served(content, live=True, silent=20) as address:
        source, frames = open_file(address), []
        with pytest.raises(UserError, match=r"ended at frame 60 \(nothing came for 1 seconds\); check that"):
            frames.extend(source)
        source.close()
    assert len(frames) == 60


@pytest.mark.slow
def test_closing_does_not_wait_for_a_silent_source(tmp_path: Path):
    content = write_video(tmp_path / "a.ts", 60, rate=30).read_bytes()
    with served(content, live=True, silent=6) as address:
        source = open_file(address)
        reader = threading.Thread(target=lambda: list(source), daemon=True)
        reader.start()
        time.sleep(0.5)
        before = time.monotonic()
        source.close()
        assert time.monotonic() - before < 3
    reader.join(20)
    assert not reader.is_alive()


def test_addresses_that_do_not_answer():
    with pytest.raises(UserError, match=r"cannot open rtsp://127\.0\.0\.1:1/x \(.*refused.*\); check that it is connected"):
        open_file("rtsp://127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("ride.mp4", True),
        ("RIDE.MOV", True),
        ("rtsp://camera/1", True),
        ("HTTPS://host/x", True),
        ("a.png", False),
        ("folder", False),
        (Path("x.webm"), True),
        ("file:///a.png", False),
    ],
)
def test_is_video(where: str, found: bool):
    assert is_video(where) is found
