"""Sizes: WIDTHxHEIGHT, multiples of eight, and a useful suggestion otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.size import Size, parse_size

SIDES = st.integers(1, 1000).map(lambda n: 8 * n)


@given(SIDES, SIDES, st.sampled_from("xX×"))
def test_roundtrip(width, height, cross):
    size = parse_size(f" {width}{cross}{height} ")
    assert size == Size(width, height) == parse_size(str(size))


@pytest.mark.parametrize("text", ["", "640", "640x", "x360", "640*360", "-8x8", "8.0x8", "640x360x3", "1000000x8", "axb"])
def test_not_a_size(text):
    with pytest.raises(UserError, match="is not a size; write WIDTHxHEIGHT"):
        parse_size(text)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_what_does_not_divide_is_refused_with_a_size_that_does(width, height):
    if width and height and width % 8 == height % 8 == 0:
        return
    with pytest.raises(UserError, match="must be divisible by 8; try") as error:
        parse_size(f"{width}x{height}")
    suggested = parse_size(str(error.value).rsplit("try ", 1)[1])
    assert abs(suggested.width - width) <= 8
    assert abs(suggested.height - height) <= 8
