"""CVAT's shapes as pixels, and XML that means harm."""

import numpy as np
import pytest

from enet_tvm.data.annotations.cvat import read_cvat
from enet_tvm.data.annotations.shapes import draw_mask
from enet_tvm.errors import UserError

pytest.importorskip("defusedxml")

SHAPES = {
    "polygon": '<polygon label="apple" points="4.0,2.0;14.0,2.0;14.0,9.0;4.0,9.0" z_order="0"/>',
    "box": '<box label="apple" xtl="4" ytl="2" xbr="14" ybr="9" z_order="0"><attribute name="a">1</attribute></box>',
    "mask": '<mask label="apple" rle="0, 88" left="4" top="2" width="11" height="8" z_order="0"/>',
}


def write(path, shapes, image='name="day/a.jpg" width="24" height="16"'):
    labels = "".join(f"<label><name>{name}</name><attributes/></label>" for name in ("leaf", "apple"))
    head = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{head}<image id="0" {image}>{shapes}</image></annotations>'
    )
    return path


def drawn(path):
    annotations = read_cvat(path)
    assert annotations.labels == ("leaf", "apple")
    assert annotations.pictures[0].name == "day/a.jpg"
    return draw_mask(annotations.pictures[0], ("background", "leaf", "apple"), 0)


@pytest.mark.parametrize("kind", SHAPES)
def test_one_rectangle_in_three_forms(tmp_path, kind):
    expected = np.zeros((16, 24), np.uint8)
    expected[2:10, 4:15] = 2
    assert np.array_equal(drawn(write(tmp_path / "a.xml", SHAPES[kind])), expected)


def test_ellipses_and_lines(tmp_path):
    turned = drawn(write(tmp_path / "a.xml", '<ellipse label="leaf" cx="12" cy="8" rx="6" ry="2" rotation="90"/>'))
    assert turned[13, 12] == 1
    assert turned[8, 17] == 0
    line = drawn(write(tmp_path / "a.xml", '<polyline label="leaf" points="2,2;20,2"/>'))
    assert line[2, 10] == 1


def test_order(tmp_path):
    below = SHAPES["box"].replace("apple", "leaf")
    assert not (drawn(write(tmp_path / "a.xml", below + SHAPES["polygon"])) == 1).any()
    assert not (drawn(write(tmp_path / "a.xml", below.replace('z_order="0"', 'z_order="1"') + SHAPES["box"])) == 2).any()


def test_other_xml_is_not_taken(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><object/></annotation>")
    assert read_cvat(tmp_path / "a.xml") is None


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ('<polygon label="a" points="1,2;x"/>', "points that are no pairs"),
        ('<polygon label="a" points="1,nan;2,3;4,5"/>', "points that are no pairs"),
        ('<polygon points="1,2;3,4;5,6"/>', "has no label"),
        ('<box label="a" xtl="1" ytl="2" xbr="x" ybr="9"/>', "'xbr' is 'x'"),
        ('<box label="a"/>', "'xtl' is None"),
        ('<mask label="a" rle="1, 2" left="0" top="0" width="9" height="9"/>', "do not add up"),
        ('<mask label="a" rle="-1, 82" left="0" top="0" width="9" height="9"/>', "do not add up"),
        ('<mask label="a" rle="" left="0" top="0" width="9" height="9"/>', "are no numbers"),
        ("<box", "no XML that can be read"),
        ("</image><track/><image>", "export of a video"),
    ],
)
def test_what_does_not_fit(tmp_path, shapes, words):
    with pytest.raises(UserError, match=words):
        read_cvat(write(tmp_path / "a.xml", shapes))


def test_a_picture_without_a_size(tmp_path):
    with pytest.raises(UserError, match="no size that a picture has"):
        read_cvat(write(tmp_path / "a.xml", "", 'name="a" width="0" height="1"'))


def test_entities_are_refused(tmp_path):
    """They could fill the memory, or read files of this machine."""
    (tmp_path / "a.xml").write_text('<!DOCTYPE a [<!ENTITY e "ha"><!ENTITY f "&e;&e;">]><annotations>&f;</annotations>')
    with pytest.raises(UserError, match="no XML that can be read"):
        read_cvat(tmp_path / "a.xml")
