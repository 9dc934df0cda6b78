from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import audio_packets, noise, picture, read_video, served, spoil_frames, write_video

from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.stream import Stage
from enet_tvm.video import source as source_module
from enet_tvm.video.frame import PlanarResizer
from enet_tvm.video.session import label_frames, rate_alone, segment_video
from enet_tvm.video.source import open_file, open_folder

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def segmenter(tiny_artifact):
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        yield segmenter


def follow(segmenter: Segmenter, path: Path | str, output: Path, **options: object):
    with contextlib.closing(open_file(path)) as source:
        return segment_video(segmenter, source, output, **options)


def test_a_file_keeps_its_frames_times_and_sound(segmenter: Segmenter, tmp_path: Path):
    times = [0, 40, 130, 150, 600, 640, 900, 990]
    ride = write_video(tmp_path / "ride.mp4", 8, times=times, tone=1.0)
    report = follow(segmenter, ride, tmp_path / "out.mp4", opacity=0.0)
    seconds, pictures = read_video(tmp_path / "out.mp4")
    assert seconds == [milliseconds / 1000 for milliseconds in times]
    for index, pixels in enumerate(pictures):
        assert np.abs(pixels.astype(int) - picture(index)).mean() < 10
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(ride)
    assert (report.statistics.items, report.statistics.dropped, report.broken, report.audio) == (8, 0, 0, "copied")
    assert (report.exit_code, report.error, report.interrupted) == (0, None, False)
    assert list(report.statistics.stages) == ["source", "preprocess", "network", "overlay", "encode"]
    written = json.loads(json.dumps(report.to_json()))
    assert written["frames_per_second"] > 0
    assert written["of_the_network_alone"] == pytest.approx(report.statistics.rate / report.alone)
    assert written["stages_ms"]["network"]["p50"] <= written["stages_ms"]["network"]["p99"]


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_other_files_keep_their_sound_too(segmenter: Segmenter, tmp_path: Path, suffix: str):
    ride = write_video(tmp_path / "ride.ts", 12, tone=1.0)
    report = follow(segmenter, ride, tmp_path / f"out{suffix}")
    assert report.audio == "copied"
    assert len(audio_packets(tmp_path / f"out{suffix}")) == len(audio_packets(ride))
    found, given = read_video(tmp_path / f"out{suffix}")[0], read_video(ride)[0]
    # Picture and sound stay together, wherever the file begins to count.
    assert found[-1] - found[0] == pytest.approx(given[-1] - given[0], abs=2e-3)
    offsets = [read_video(path)[0][0] - audio_packets(path)[0][0] for path in (ride, tmp_path / f"out{suffix}")]
    assert offsets[0] == pytest.approx(offsets[1], abs=0.03)


def test_the_colours_are_those_of_the_labels(segmenter: Segmenter, tmp_path: Path):
    report = follow(segmenter, write_video(tmp_path / "ride.mp4", 3), tmp_path / "out.mp4", opacity=1.0)
    assert report.size == (64, 48)
    labels = segmenter.segment(read_video(tmp_path / "ride.mp4")[1][2])
    palette = np.asarray(segmenter.manifest.palette)
    found = read_video(tmp_path / "out.mp4")[1][2].astype(int)
    assert np.median(np.abs(found - palette[labels]).max(axis=-1)) < 12


def test_rotated_and_odd_frames_keep_their_shape(segmenter: Segmenter, tmp_path: Path):
    assert follow(segmenter, write_video(tmp_path / "a.mp4", 3, rotation=90), tmp_path / "out.mp4").size == (48, 64)
    assert read_video(tmp_path / "out.mp4")[1][0].shape == (64, 48, 3)
    odd = write_video(tmp_path / "odd.mkv", [picture(0, 65, 49)] * 2, codec="ffv1", pixels="yuv444p")
    follow(segmenter, odd, tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4")[1][0].shape == (48, 64, 3)


def test_a_folder_becomes_a_video(segmenter: Segmenter, tmp_path: Path):
    for index in range(3):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    report = segment_video(segmenter, open_folder(tmp_path), tmp_path / "out.mp4")
    assert report.audio == "none"
    assert read_video(tmp_path / "out.mp4")[0] == [0, 0.04, 0.08]


def test_frames_of_a_file_are_computed_side_by_side_and_stay_in_order(tiny_artifact, tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", 20)
    with Segmenter.load(tiny_artifact.directory, threads=2) as pair, contextlib.closing(open_file(ride)) as source:
        with label_frames(pair, source) as stream:
            results = list(stream)
        assert len(pair.parts()) == 2
        assert [result.frame.index for result in results] == list(range(20))
        for result in results:
            x = pair.normalise(PlanarResizer(pair.size)(result.frame))
            np.testing.assert_array_equal(result.labels, pair.labels(pair.forward(x)[0]))
        assert rate_alone(pair.parts(), passes=2) > 0
    with pytest.raises(UserError, match="closed"):
        pair.parts()[0].forward(np.zeros((1, 3, 16, 24), np.float32))


def test_broken_frames_are_left_out_and_told(segmenter: Segmenter, tmp_path: Path):
    ride = spoil_frames(write_video(tmp_path / "ride.mp4", 12, group=1), 4, 5)
    report = follow(segmenter, ride, tmp_path / "out.mp4")
    assert (report.broken, report.statistics.items, report.exit_code) == (2, 10, 2)
    seconds = read_video(tmp_path / "out.mp4")[0]
    assert seconds[4] == pytest.approx(6 / 12, abs=2e-3)  # the others come when they came


def test_a_file_that_breaks_off_is_one_sentence_and_what_was_written_plays(segmenter: Segmenter, tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", [noise(index) for index in range(24)], rate=4, movflags="+faststart")
    ride.write_bytes(ride.read_bytes()[: int(ride.stat().st_size * 0.6)])
    report = follow(segmenter, ride, tmp_path / "out.mp4")
    assert report.exit_code == 2
    assert "of 6.0 seconds; is it a whole video file?; " in report.error
    assert report.error.endswith("out.mp4 can be played as far as it goes")
    assert len(read_video(tmp_path / "out.mp4")[0]) == report.statistics.items > 4


def test_a_camera_that_falls_silent_is_one_sentence(segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source_module, "SILENCE", 1.0)
    content = write_video(tmp_path / "a.ts", 60, rate=30).read_bytes()
    with served(content, live=True, silent=20) as address:
        report = follow(segmenter, address, tmp_path / "out.mp4")
    assert report.live
    assert report.exit_code == 2
    assert "(nothing came for 1 seconds); check that it is connected" in report.error
    assert len(read_video(tmp_path / "out.mp4")[0]) == report.statistics.items > 0
    assert report.statistics.items + report.statistics.dropped == 60


def test_a_live_source_drops_frames_that_nobody_has_time_for(segmenter: Segmenter, tmp_path: Path):
    content = write_video(tmp_path / "a.ts", 60, rate=30).read_bytes()
    slow = threading.Event()
    with served(content, live=True) as address, contextlib.closing(open_file(address)) as source:
        with label_frames(segmenter, source, then=(Stage("slow", lambda item: slow.wait(0.1) or item),)) as stream:
            found = []
            with pytest.raises(UserError, match="ended at frame 60"):
                found.extend(stream)
        dropped = stream.statistics().dropped
    assert dropped > 20
    indices = [item.frame.index for item in found]
    assert indices == sorted(set(indices))
    assert indices[-1] == 59  # the newest is never the one that is dropped
    assert len(found) + dropped == 60


def test_interrupted(segmenter: Segmenter, tmp_path: Path):
    def interrupt(frames: int, _: int) -> None:
        if frames == 4:
            raise KeyboardInterrupt

    report = follow(segmenter, write_video(tmp_path / "ride.mp4", 40), tmp_path / "out.mp4", progress=interrupt)
    assert (report.interrupted, report.error, report.exit_code) == (True, None, 130)
    assert 4 <= len(read_video(tmp_path / "out.mp4")[0]) < 40


def test_nothing_is_written_where_nothing_can_be(segmenter: Segmenter, tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", 3)
    with contextlib.closing(open_file(ride)) as source, pytest.raises(UserError, match="gave no frame in that time"):
        segment_video(segmenter, source.first(0.0), tmp_path / "out.mp4")
    with pytest.raises(UserError, match="no video that can be written"):
        follow(segmenter, ride, tmp_path / "out.avi")
    assert [path.name for path in tmp_path.iterdir()] == ["ride.mp4"]
