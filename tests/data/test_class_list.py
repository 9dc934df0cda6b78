"""Classes as people write them down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.data.class_list import read_classes, spread_palette
from enet_tvm.data.classes import CLASS_SETS
from enet_tvm.errors import UserError


def test_a_number_and_a_class_set():
    five = read_classes("5")
    assert five.names == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert five.palette == spread_palette(5)
    assert read_classes("cityscapes") is CLASS_SETS["cityscapes"]
    assert len(read_classes("256")) == 256


@given(st.integers(1, 256))
def test_colours_differ(count):
    assert len(set(spread_palette(count))) == count


GIVEN = ("road", "traffic light", "lane 2"), ((128, 64, 128), (250, 170, 30), (0, 128, 0))


@pytest.mark.parametrize(
    "content",
    [
        "road 128 64 128\ntraffic light 250 170 30\nlane 2 0 128 0\n",
        "\ufeffroad,128,64,128\r\ntraffic light,250,170,30\r\nlane 2,0,128,0\r\n",
        "# mine\nroad\t#804080\n\ntraffic light: #faaa1e\nlane 2 (0, 128, 0)\n",
        "128 64 128\troad\n250 170 30\ttraffic light\n0 128 0\tlane 2\n",
        "name,r,g,b\nroad, 128, 64, 128\ntraffic light, 250, 170, 30\nlane 2, 0, 128, 0",
        '[{"name": "road", "color": [128, 64, 128]}, {"name": "traffic light", "colour": [250, 170, 30]},'
        ' {"name": "lane 2", "color": [0, 128, 0]}]',
    ],
)
def test_files_with_colours(content, tmp_path):
    path = tmp_path / "classes"
    path.write_text(content, encoding="utf-8", newline="")
    read = read_classes(str(path))
    assert (read.names, read.palette) == GIVEN


@pytest.mark.parametrize("content", ["cat\nhund\nжук", '["cat", "hund", "жук"]', '{"0": "cat", "2": "жук", "1": "hund"}'])
def test_files_of_names_alone(content, tmp_path):
    path = tmp_path / "classes"
    path.write_text(content, encoding="utf-8")
    read = read_classes(str(path))
    assert (read.names, read.palette) == (("cat", "hund", "жук"), spread_palette(3))


def test_colours_that_are_made_are_not_those_given(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("a\nb 128 0 0\nc\n")
    palette = read_classes(str(path)).palette
    assert palette[1] == (128, 0, 0)
    assert len(set(palette)) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "names 0 classes"),
        ("a\nb\na\n", "names 'a' twice"),
        ("a 300 0 0\n", "0 to 255"),
        ("[1]", "entry 0 has no name"),
        ('[{"name": "a", "color": [1, 2]}]', "three numbers"),
        ('{"a": "b"}', "numbers from 0 on"),
        ('["a"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\n".join(map(str, range(257))), "257 classes"),
    ],
)
def test_broken_files(content, words, tmp_path):
    path = tmp_path / "classes"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_classes(str(path))


@pytest.mark.parametrize(("text", "words"), [("0", "0 classes"), ("257", "257 classes"), ("pascal", "no class set 'pascal'")])
def test_what_is_no_list(text, words):
    with pytest.raises(UserError, match=words):
        read_classes(text)


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "c").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_classes(str(tmp_path / "c"))
