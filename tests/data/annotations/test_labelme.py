"""labelme's shapes as pixels."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.data.annotations.labelme import is_labelme, parse_labelme
from enet_tvm.data.annotations.shapes import draw_mask
from enet_tvm.errors import UserError


def content(*shapes):
    listed = [
        {"label": label, "points": points, "shape_type": kind, "flags": {}} | more for label, kind, points, more in shapes
    ]
    return {"version": "5.5.0", "shapes": listed, "imagePath": "a.jpg", "imageHeight": 16, "imageWidth": 24, "imageData": None}


def drawn(*shapes):
    return draw_mask(parse_labelme(content(*shapes), Path("a.json")), ("background", "apple", "leaf"), 0)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_every_kind_of_shape():
    assert is_labelme(content())
    assert not drawn().any()
    box = drawn(("apple", "rectangle", [[14, 9], [4, 2]], {}))
    assert np.array_equal(box[2:10, 4:15], np.ones((8, 11)))
    assert box.sum() == 88
    assert np.array_equal(drawn(("apple", "polygon", [[4, 2], [14, 2], [14, 9], [4, 9]], {})), box)
    circle = drawn(("leaf", "circle", [[12, 8], [12, 3]], {}))
    assert circle[8, 12] == circle[8, 8] == 2
    assert abs((circle == 2).sum() - np.pi * 25) < 20
    line = drawn(("apple", "linestrip", [[2, 2], [20, 2], [20, 12]], {}))
    assert line[2, 10] == line[10, 20] == 1
    assert line[10, 10] == 0
    assert drawn(("apple", "point", [[5, 5]], {}))[5, 5] == 1
    assert drawn(("apple", "mask", [[20, 3], [26, 6]], {"mask": png(np.ones((4, 7), bool))})).sum() == 16


def test_later_shapes_lie_on_top():
    both = drawn(("leaf", "rectangle", [[5, 5], [7, 7]], {}), ("apple", "rectangle", [[2, 2], [12, 12]], {}))
    assert not (both == 2).any()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("apple", "polygon", [[1, 2], [3, 4]], {}), "shape 0, a polygon, has 2 points"),
        (("apple", "blob", [[1, 2]], {}), "'shapes.0.shape_type'"),
        (("apple", "polygon", [[1, "x"]], {}), "'shapes.0.points.0.1'"),
        (("", "polygon", [[1, 2]], {}), "'shapes.0.label'"),
        (("apple", "mask", [[1, 2], [3, 4]], {"mask": "!"}), "whose pixels are no PNG file"),
        (("apple", "mask", [[1, 2], [3, 4]], {"mask": base64.b64encode(b"x").decode()}), "whose pixels are no PNG file"),
        (("apple", "mask", [[1, 2], [3, 4]], {}), "whose pixels are no PNG file"),
    ],
)
def test_what_does_not_fit(shape, words):
    with pytest.raises(UserError, match=words):
        parse_labelme(content(shape), Path("a.json"))


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)), min_size=3, max_size=8))
def test_points_anywhere_are_drawn(points):
    assert drawn(("apple", "polygon", [list(point) for point in points], {})).max() <= 1
