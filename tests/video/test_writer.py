from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import picture, read_video

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video.writer import VideoWriter, video_format

SIZE = Size(64, 48)


def frame(index: int, milliseconds: int | None = None) -> av.VideoFrame:
    image = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
    image.pts, image.time_base = 100 * index if milliseconds is None else milliseconds, Fraction(1, 1000)
    return image


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".M4V"])
def test_frames_keep_their_times(tmp_path: Path, suffix: str):
    times = [0, 40, 80, 300, 310, 1200]
    with VideoWriter(tmp_path / f"new/out{suffix}", SIZE, Fraction(25)) as writer:
        for index, milliseconds in enumerate(times):
            writer.write(frame(index, milliseconds))
    seconds, pictures = read_video(writer.path)
    assert seconds == pytest.approx([milliseconds / 1000 for milliseconds in times], abs=1e-3)
    for index, found in enumerate(pictures):
        assert np.abs(found.astype(int) - picture(index)).mean() < 8
    assert [path.name for path in writer.path.parent.iterdir()] == [writer.path.name]


def test_a_frame_with_the_time_of_the_one_before_it_is_kept(tmp_path: Path):
    with VideoWriter(tmp_path / "out.mp4", SIZE, Fraction(25)) as writer:
        for index, milliseconds in enumerate([0, 40, 40, 20, 80]):
            writer.write(frame(index, milliseconds))
    seconds, _ = read_video(writer.path)
    assert len(seconds) == 5
    assert seconds == sorted(seconds)


def test_without_a_frame_there_is_no_file_and_the_old_one_stays(tmp_path: Path):
    (tmp_path / "out.mp4").write_text("the film of last week")
    with VideoWriter(tmp_path / "out.mp4", SIZE, Fraction(25)):
        pass
    assert (tmp_path / "out.mp4").read_text() == "the film of last week"
    with VideoWriter(tmp_path / "none.mp4", SIZE, Fraction(25)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_an_error_in_the_block_leaves_what_was_written(tmp_path: Path):
    writer = VideoWriter(tmp_path / "out.mp4", SIZE, Fraction(10))
    for index in range(7):
        writer.write(frame(index))
    with pytest.raises(ZeroDivisionError), writer:
        raise ZeroDivisionError
    assert len(read_video(tmp_path / "out.mp4")[0]) == 7


def test_sound_that_the_file_cannot_hold_is_left_out_with_a_reason(tmp_path: Path):
    path = tmp_path / "in.wma"
    with av.open(str(path), "w", format="asf") as container:
        sound = container.add_stream("wmav2", rate=44100, layout="mono")
        sound.bit_rate = 64_000
        part = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
        part.sample_rate = 44100
        container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    with (
        av.open(str(path)) as container,
        VideoWriter(tmp_path / "out.mp4", SIZE, Fraction(10), container.streams.audio[0]) as writer,
    ):
        writer.write(frame(0), [packet for packet in container.demux() if packet.size])
    assert "wmav2" in writer.audio_left_out
    assert len(read_video(writer.path)[0]) == 1


def run(code: str, *arguments: object, limit: int | None = None, **options: object) -> subprocess.Popen[str]:
    limits = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    head = "import sys, time; from fractions import Fraction; from pathlib import Path\n"
    head += "from enet_tvm.errors import UserError; from enet_tvm.video.writer import VideoWriter\n"
    head += f"sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_writer import SIZE, frame\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=limits, env=environment, **options)


def test_a_full_disk_is_one_sentence_and_the_file_can_be_played(tmp_path: Path):
    code = """
    import numpy as np
    rng = np.random.default_rng(0)
    try:
        with VideoWriter(Path(sys.argv[1]), SIZE, Fraction(10)) as writer:
            for index in range(400):
                image = frame(index)
                np.frombuffer(image.planes[0], np.uint8)[:] = rng.integers(0, 255, 64 * 48, np.uint8)
                writer.write(image)
    except UserError as error:
        print(error)
    """
    process = run(code, tmp_path / "out.mp4", limit=300_000)
    said, _ = process.communicate(timeout=100)
    assert f"cannot write {tmp_path / 'out.mp4'}: " in said
    assert said.endswith("; choose another place or free some room\n")
    assert said.count("\n") == 1
    assert 10 < len(read_video(tmp_path / "out.mp4")[0]) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_a_killed_process_has_written_can_be_played(tmp_path: Path):
    code = """
    writer = VideoWriter(Path(sys.argv[1]), SIZE, Fraction(10))
    for index in range(100):
        writer.write(frame(index))
    print("written", flush=True)
    time.sleep(60)
    """
    process = run(code, tmp_path / "out.mp4")
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    (left,) = tmp_path.iterdir()
    assert len(read_video(left)[0]) >= 20


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.avi", "no video that can be written"),
        ("out", "ends in .mp4"),
        ("file/out.mp4", "cannot write"),
        ("folder.mp4", "directory"),
    ],
)
def test_places_where_no_video_can_be(tmp_path: Path, name: str, sentence: str):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=sentence):
        VideoWriter(tmp_path / name, SIZE, Fraction(25))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_video_format():
    assert video_format(Path("ride.MP4")) == "mp4"
    assert video_format(Path("ride.mkv")) == "matroska"
