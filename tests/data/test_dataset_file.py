"""What a `dataset.toml` may say; each fault is told by file, key and what was expected."""

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.data.dataset_file import read_dataset_file
from enet_tvm.errors import UserError
from enet_tvm.size import Size

WHOLE = """\
name = "orchard"
pictures = "images/*.*"
masks = "masks/*.png"
void = 255
size = "640x360"

[[classes]]
name = "ground"
value = 0

[[classes]]
name = "apple"
value = [1, 3]
colour = [255, 0, 0]

[splits]
train = 0.8
val = 0.2
"""


def read(tmp_path, text):
    path = tmp_path / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    return read_dataset_file(path)


def test_a_whole_one(tmp_path):
    described = read(tmp_path, WHOLE)
    class_set = described.class_set()
    assert class_set.names == ("ground", "apple")
    assert class_set.palette[1] == (255, 0, 0)
    assert len(set(class_set.palette)) == 2
    assert class_set.ignore_index == 255
    assert described.classes[1].value == (1, 3)
    assert described.paper_size == Size(640, 360)
    assert described.splits.names == ("train", "val")


FAULTS = [
    ('size = "640x360"', 'size = "640x361"', "line 5: 'size'", "divisible by 8"),
    ('size = "640x360"', "sise = 1", "line 5: 'sise' is not a key", "known here are name, root"),
    ('pictures = "images/*.*"', "", "'pictures' is missing", 'a pattern such as "images'),
    ('pictures = "images/*.*"', r'pictures = "images\\*"', "line 2: 'pictures'", "write / between folders"),
    ("value = 0", 'value = "none"', "line 9: 'classes.1.value' = 'none' must be", "from 0 to 65535"),
    ("value = 0", "value = 65536", "line 9: 'classes.1.value'", "from 0 to 65535"),
    ("value = 0", "value = 0.5", "line 9: 'classes.1.value'", "from 0 to 65535"),
    ("value = 0", "value = 3", "the value 3 is given twice", "correct it"),
    ("value = 0", "value = 255", "the value 255 is given twice", "correct it"),
    ("value = 0", "", "the class 'ground' has no value", "give the number"),
    ('name = "apple"', 'name = "ground"', "the name 'ground' is given twice", "correct it"),
    ("colour = [255, 0, 0]", "colour = [256, 0, 0]", "'classes.2.colour'", "each from 0 to 255"),
    ("colour = [255, 0, 0]", 'colour = "red"', "'classes.2.colour' = 'red' must be red, green and blue", "correct it"),
    ("train = 0.8", "train = 0.9", "'splits': the shares add up to 1.1", "correct it"),
    ("train = 0.8", "train = true", "'splits.train'", "a share of the pictures"),
    ("val = 0.2", "", "'splits.val' is missing", "a folder or a list"),
    ("val = 0.2", "val = 0.2\nblock = 0", "'splits.block' = 0", "whole number of successive names"),
    ("void = 255", "void = [[1, 2, 3]]", "void is [1, 2, 3]", 'set mask_kind = "colours"'),
    ("void = 255", 'mask_kind = "colours"', "the class 'ground' has no colour", "masks of colours need one"),
    ("void = 255", "mask_kind = 3", "'mask_kind' = 3 must be", '"numbers"'),
    ("void = 255", "void = [", "is not valid TOML", "enet-tvm data new"),
]


@pytest.mark.parametrize(("old", "new", "said", "expected"), FAULTS)
def test_faults(tmp_path, old, new, said, expected):
    assert old in WHOLE
    with pytest.raises(UserError) as caught:
        read(tmp_path, WHOLE.replace(old, new))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "dataset.toml"))
    assert said in message
    assert expected in message
    assert "\n" not in message


def test_one_class_is_none(tmp_path):
    with pytest.raises(UserError, match="there are 1 classes, and 2 to 255 are wanted"):
        read(tmp_path, re.sub(r"\[\[classes\]\]\nname = \"apple\"[^[]*\[1, 3\]\ncolour = .*\n", "", WHOLE))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda c: st.lists(c, max_size=3)))
def test_any_value_ends_in_a_sentence(tmp_path_factory, value):
    """No value of any key raises anything but a UserError."""
    path = tmp_path_factory.mktemp("d") / "dataset.toml"
    text = json.dumps(value).replace("null", '""').replace("\x7f", "\\u007f")
    for key in ("name", "pictures", "masks", "void", "size", "classes", "splits", "root"):
        kept = [line for line in WHOLE.split("\n\n")[0].splitlines() if not line.startswith(f"{key} ")]
        rest = "" if key in ("classes", "splits") else WHOLE[WHOLE.index("\n[[") :]
        path.write_text("\n".join([*kept, f"{key} = {text}"]) + "\n" + rest, encoding="utf-8")
        with contextlib.suppress(UserError):
            read_dataset_file(path)
