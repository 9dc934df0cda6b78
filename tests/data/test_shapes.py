"""The drawn shapes."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.shapes import MOST_CLASSES, draw_shapes, shape_classes, write_shapes
from enet_tvm.errors import UserError
from enet_tvm.size import Size


def test_every_class_is_drawn():
    labels = [draw_shapes(Size(64, 48), MOST_CLASSES, np.random.default_rng(seed))[1] for seed in range(30)]
    assert set(np.unique(labels)) == set(range(MOST_CLASSES))


def test_what_is_written(tmp_path):
    write_shapes(tmp_path / "s", 2, 3, Size(48, 32))
    assert (tmp_path / "s" / "classes.txt").read_text().split()[::4] == ["background", "disc", "star"]
    with Image.open(tmp_path / "s" / "images" / "0002.png") as picture:
        assert picture.size == (48, 32)
    written = np.asarray(Image.open(tmp_path / "s" / "masks" / "0002.png"))
    assert np.array_equal(written, draw_shapes(Size(48, 32), 3, np.random.default_rng([0, 2]))[1])


@pytest.mark.parametrize("count", [1, MOST_CLASSES + 1])
def test_no_such_number(count):
    with pytest.raises(UserError, match=f"{count} classes of shapes cannot be drawn"):
        shape_classes(count)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine.png").touch()
    with pytest.raises(UserError, match="not empty"):
        write_shapes(tmp_path, 1, 2, Size(16, 16))
