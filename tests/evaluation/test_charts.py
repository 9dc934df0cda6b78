"""Charts: one look whatever a user's settings are, nothing of pyplot's touched, nothing half-written."""

import matplotlib as mpl
import pytest
from PIL import Image

from enet_tvm.evaluation.charts import DPI, chart


def test_a_chart_has_its_size_and_leaves_matplotlib_as_it_was(tmp_path):
    with mpl.rc_context({"figure.facecolor": "black", "text.parse_math": True}):
        before = dict(mpl.rcParams)
        with chart(tmp_path / "chart.png", 3, 2) as figure:
            figure.add_subplot().set_title("$one of two")
        assert dict(mpl.rcParams) == before
    picture = Image.open(tmp_path / "chart.png").convert("RGB")
    assert picture.size == (3 * DPI, 2 * DPI)
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_chart_that_is_not_finished_leaves_what_was_there(tmp_path):
    path = tmp_path / "chart.png"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), chart(path, 3, 2):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
