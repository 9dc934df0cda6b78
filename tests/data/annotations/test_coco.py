"""COCO's annotations, against pycocotools' own reading of them."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.data.annotations.coco import is_coco, parse_coco, unpack_counts
from enet_tvm.data.annotations.shapes import draw_mask
from enet_tvm.errors import UserError

mask = pytest.importorskip("pycocotools.mask")
coco = pytest.importorskip("pycocotools.coco")

TRIANGLE = [2.0, 2.0, 20.0, 2.0, 2.0, 13.0]
PIXELS = np.zeros((16, 24), np.uint8)
PIXELS[4:9, 5:11] = 1


def run_lengths(pixels, packed):
    encoded = mask.encode(np.asfortranarray(pixels))
    if packed:
        return {"counts": encoded["counts"].decode(), "size": [16, 24]}
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": [16, 24]}


def content(*annotations):
    listed = [
        {"id": number, "image_id": 1, "category_id": kind, "segmentation": segmentation, "iscrowd": crowd}
        for number, (kind, segmentation, crowd) in enumerate(annotations)
    ]
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 24, "height": 16}],
        "annotations": listed,
        "categories": [{"id": 7, "name": "leaf"}, {"id": 3, "name": "apple"}],
    }


@pytest.mark.parametrize(
    "segmentation", [[TRIANGLE], run_lengths(PIXELS, True), run_lengths(PIXELS, False), run_lengths(1 - PIXELS, False)]
)
def test_like_pycocotools(tmp_path, segmentation):
    raw = content((3, segmentation, 0))
    assert is_coco(raw)
    path = tmp_path / "c.json"
    path.write_text(json.dumps(raw))
    with contextlib.redirect_stdout(io.StringIO()):
        api = coco.COCO(str(path))
    expected = api.annToMask(api.loadAnns([0])[0])
    parsed = parse_coco(raw, path)
    assert parsed.labels == ("leaf", "apple")
    drawn = draw_mask(parsed.pictures[0], ("background", *parsed.labels), 0)
    assert np.array_equal(drawn, expected * 2)


def test_the_smaller_lies_over_the_larger_and_crowds_are_void(tmp_path):
    small, large, crowd = np.zeros((3, 16, 24), np.uint8)
    small[5:7, 5:7], large[2:10, 2:10], crowd[12:, :] = 1, 1, 1
    raw = content((3, run_lengths(small, True), 0), (7, run_lengths(large, True), 0), (7, run_lengths(crowd, False), 1))
    parsed = parse_coco(raw, tmp_path)
    drawn = draw_mask(parsed.pictures[0], ("background", "leaf", "apple"), 0)
    assert drawn[6, 6] == 2
    assert drawn[3, 3] == 1
    assert drawn[13, 3] == 255
    assert drawn[0, 0] == 0
    assert parsed.said == ("1 crowds (iscrowd) count nowhere",)


def test_boxes_alone_are_told(tmp_path):
    parsed = parse_coco(content((3, [], 0), (3, None, 0)), tmp_path)
    assert parsed.said == ("2 annotations have a box and no outline, and are left out",)


def changed(path, value):
    raw = copy.deepcopy(content((3, [TRIANGLE], 0)))
    *steps, last = path
    place = raw
    for step in steps:
        place = place[step]
    place[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 0, "width"), 0, "'images.0.width'"),
        (("annotations", 0, "image_id"), 9, "annotation 0 is of an image"),
        (("annotations", 0, "category_id"), 9, "annotation 0 is of a category"),
        (("annotations", 0, "segmentation"), [[1.0, 2.0, 3.0, 4.0]], "a polygon of 4 numbers"),
        (("annotations", 0, "segmentation"), [[1e9, 2.0, 3.0, 4.0, 5.0, 6.0]], "far from its picture"),
        (("annotations", 0, "segmentation"), {"counts": "0", "size": [16, 24]}, "do not add up"),
        (("annotations", 0, "segmentation"), {"counts": "~~~~~", "size": [16, 24]}, "do not add up"),
        (("annotations", 0, "segmentation"), {"counts": [5], "size": [16, 24]}, "do not add up"),
        (("annotations", 0, "segmentation"), {"counts": [-5, 389], "size": [16, 24]}, "do not add up"),
        (("annotations", 0, "segmentation"), {"counts": [4], "size": [2, 2]}, "is 2x2, and its picture 24x16"),
        (("categories",), [], "'categories'"),
        (("annotations",), {}, "'annotations'"),
    ],
)
def test_what_does_not_fit(tmp_path, path, value, words):
    with pytest.raises(UserError, match=words):
        parse_coco(changed(path, value), tmp_path / "c.json")


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_run_lengths_are_unpacked_as_pycocotools_packs_them(bits):
    pixels = np.asfortranarray(np.array(bits, np.uint8)[:, None])
    lengths = unpack_counts(mask.encode(pixels)["counts"].decode())
    assert np.repeat(np.arange(len(lengths)) % 2, lengths).tolist() == pixels.ravel().tolist()


@given(st.text(max_size=12))
def test_any_text_of_run_lengths_ends_in_pixels_or_a_sentence(text):
    with contextlib.suppress(UserError):
        parse_coco(content((3, {"counts": text, "size": [16, 24]}, 0)), "c.json")
