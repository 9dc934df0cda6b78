"""Lines of keys, found for any way of writing them."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.toml_text import line_of

TEXT = """\
# a comment
top = 1

[table]
"quoted key" = 2
array = [
    1,  # one
    2,
]
inline = { a = 1, b = { c = 2 } }
dotted.deep.key = 3
text = '''
[table.not]
x = 1
'''

[[list]]
a = 1
[[list]]
a = 2
[list.inner]
b = 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("table",), 4),
        (("table", "quoted key"), 5),
        (("table", "array"), 6),
        (("table", "array", 1), 6),
        (("table", "inline", "b", "c"), 10),
        (("table", "dotted", "deep", "key"), 11),
        (("table", "text"), 12),
        (("list", 0), 17),
        (("list", 0, "a"), 18),
        (("list", 1, "a"), 20),
        (("list", 1, "inner", "b"), 22),
        (("list", 0, "absent"), 17),
        (("table", "absent"), 4),
        (("absent",), None),
        ((), None),
    ],
)
def test_every_way_of_writing_a_key(path, line):
    tomllib.loads(TEXT)
    assert line_of(TEXT, path) == line


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["", "# note = 1", "k{} = {}", "k{} = [\n{},\n2]"]), max_size=12))
def test_plain_keys_are_where_they_were_put(pieces):
    lines, where = [], {}
    for number, piece in enumerate(pieces):
        if piece.startswith("k"):
            where[f"k{number}"] = len(lines) + 1
        lines += piece.format(number, number).split("\n")
    text = "\n".join(lines)
    assert all(line_of(text, (key,)) == line for key, line in where.items())
