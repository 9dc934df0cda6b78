from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from videos import read_video

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video.drawn import drawn_ride, write_ride


def test_a_ride_moves_and_comes_to_another_street():
    pictures = [np.asarray(picture).astype(int) for picture in drawn_ride(Size(96, 64), 4.5, rate=4)]
    assert len(pictures) == 18
    assert {picture.shape for picture in pictures} == {(64, 96, 3)}
    steps = [np.abs(after - before).mean() for before, after in itertools.pairwise(pictures)]
    assert min(steps) > 0.5
    assert int(np.argmax(steps)) == 15  # from the last picture of the first street to the second
    again = [np.asarray(picture) for picture in drawn_ride(Size(96, 64), 1, rate=4)]
    np.testing.assert_array_equal(again[3], pictures[3])
    other = [np.asarray(picture) for picture in drawn_ride(Size(96, 64), 1, rate=4, seed=1)]
    assert np.abs(other[0].astype(int) - pictures[0]).mean() > 5


def test_a_ride_as_a_file(tmp_path: Path):
    assert write_ride(tmp_path / "ride.mp4", Size(96, 64), 0.5, rate=10) == 5
    seconds, pictures = read_video(tmp_path / "ride.mp4")
    assert seconds == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    expected = np.asarray(list(drawn_ride(Size(96, 64), 0.5, rate=10))[4]).astype(int)
    assert np.abs(pictures[4] - expected).mean() < 10


@pytest.mark.parametrize(
    ("name", "size", "seconds", "sentence"),
    [
        ("ride.mp4", Size(95, 64), 1, "even width and height"),
        ("ride.mp4", Size(96, 64), 0.01, "has no frame"),
        ("ride.gif", Size(96, 64), 1, "no video that can be written"),
    ],
)
def test_rides_that_cannot_be(tmp_path: Path, name: str, size: Size, seconds: float, sentence: str):
    with pytest.raises(UserError, match=sentence):
        write_ride(tmp_path / name, size, seconds, rate=10)
    assert not list(tmp_path.iterdir())
