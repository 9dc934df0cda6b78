from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rpi4", "rpi4"),
        ("größe 4", "größe 4"),
        ("\x1b[2Jpi\a", r"\x1b[2Jpi\x07"),
        ("a\r\nb", r"a\r\nb"),
        ("\u202epi", r"\u202epi"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 20))
def test_any_text(text: str, longest: int) -> None:
    assert printable(text).isprintable()
    printable(text).encode("utf-8")  # can be sent to any terminal
    assert printable(text, longest, keep="\n").replace("\n", "").isprintable()
    assert len(printable("a" * 30, longest)) == longest
