from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from videos import picture, write_video

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video.opening import check_options, means_video, open_source


@pytest.mark.parametrize(
    ("inputs", "camera", "output", "video"),
    [
        (["a.png"], None, "out", False),
        (["ride.mp4"], None, "out.mp4", True),
        (["ride.mp4"], None, "out", True),
        (["folder"], None, "out.mkv", True),
        (["folder"], None, "out", False),
        (["rtsp://camera"], None, "out.mp4", True),
        ([], "0", "out.mp4", True),
    ],
)
def test_means_video(inputs: list[str], camera: str | None, output: str, video: bool):
    assert means_video(inputs, camera, Path(output)) is video


def test_options_that_do_not_fit():
    check_options(True, Path("out.mp4"), labels=False, camera_size="640x360", rate=5, seconds=1.0)
    check_options(False, Path("out"), labels=True, camera_size=None, rate=None, seconds=None)
    with pytest.raises(UserError, match="--labels is for pictures"):
        check_options(True, Path("out.mp4"), labels=True)
    with pytest.raises(UserError, match="--camera-size is for videos"):
        check_options(False, Path("out"), camera_size="640x360")
    with pytest.raises(UserError, match="no video that can be written"):
        check_options(True, Path("out"))


def test_a_file_or_a_folder(tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", 24)
    source = open_source([ride], seconds=0.5)
    assert (source.name, source.expected, len(list(source))) == (str(ride), 6, 6)
    source.close()
    (tmp_path / "folder").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "folder/0.png")
    assert open_source([tmp_path / "folder"], rate=7).rate == 7


def test_sources_that_are_none_or_several(tmp_path: Path):
    ride = write_video(tmp_path / "ride.mp4", 2)
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    for arguments, options, sentence in [
        ([[]], {}, "there is nothing to make a video of"),
        ([[ride, ride]], {}, "made of one source, not 2"),
        ([[ride], "0"], {}, "are two sources; give one"),
        ([[ride]], {"size": Size(64, 48)}, "only a camera can be asked for a size"),
        ([[ride]], {"rate": 5}, "has its own times; leave --rate out"),
        ([[tmp_path / "0.png"]], {}, "neither a video nor a folder of pictures"),
        ([[tmp_path / "absent"]], {}, "neither a video nor a folder"),
    ]:
        with pytest.raises(UserError, match=sentence):
            open_source(*arguments, **options)
