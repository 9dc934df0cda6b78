"""Lists of pairs as tools and people write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.lists import read_lines, read_pairs
from enet_tvm.errors import UserError


def lay(root: Path, *names: str) -> None:
    for name in names:
        for folder in ("train", "trainannot"):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / name).touch()


def listed(root: Path, content: str | bytes) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Return the names of the pairs of a list, and what is wrong with it."""
    (root / "train.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    listing = CamVid.list_files(root, "train")
    assert all(picture.parent.name == "train" and labels.parent.name == "trainannot" for picture, labels in listing.pairs)
    return [(picture.name, labels.name) for picture, labels in listing.pairs], listing.problems


@pytest.mark.parametrize(
    "content",
    [
        "train/a.png trainannot/a.png\ntrain/b.png trainannot/b.png\n",
        "train/a.png trainannot/a.png\ntrain/b.png trainannot/b.png",
        b"\xef\xbb\xbftrain/a.png trainannot/a.png\ntrain/b.png trainannot/b.png\n",
        b"\xef\xbb\xbfa.png a.png\nb.png b.png\n",
        "train/a.png trainannot/a.png\r\ntrain/b.png trainannot/b.png\r\n\r\n",
        "train/a.png trainannot/a.png\rtrain/b.png trainannot/b.png\r",
        "train/a.png trainannot/a.png\r\ntrain/b.png trainannot/b.png\r\n".encode("utf-16"),
        "\\SegNet\\train\\a.png \\SegNet\\trainannot\\a.png\nC:\\x\\b.png C:\\y\\b.png\n",
        "a.png\ta.png\nb.png\tb.png\n",
        "a.png,a.png\nb.png, b.png\n",
        "a.png;a.png\nb.png ; b.png\n",
        '"a.png","a.png"\n"b.png" "b.png"\n',
        "  a.png    a.png  \n\n \nb.png \t b.png\n",
    ],
)
def test_every_hand(tmp_path: Path, content: str | bytes):
    lay(tmp_path, "a.png", "b.png")
    assert listed(tmp_path, content) == ([("a.png", "a.png"), ("b.png", "b.png")], ())


@pytest.mark.parametrize("name", ["IMG 000 (1).png", "a, b.png", "a;b , c d.png", "a\\b.png", "it's.png", "straße 日本.png"])
@pytest.mark.parametrize("divider", [" ", "\t", ",", ", "])
def test_names_with_what_divides(tmp_path: Path, name: str, divider: str):
    lay(tmp_path, name)
    assert listed(tmp_path, f"/x y/train/{name}{divider}/x y/trainannot/{name}\n") == ([(name, name)], ())


@pytest.mark.parametrize(("stored", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_in_one_character_or_two(tmp_path: Path, stored: str, written: str):
    name = unicodedata.normalize(stored, "straße_ü_é.png")
    lay(tmp_path, name)
    path = unicodedata.normalize(written, name)
    assert path != name
    assert listed(tmp_path, f"train/{path} trainannot/{path}\n") == ([(name, name)], ())


def test_what_is_missing_is_named(tmp_path: Path):
    lay(tmp_path, "IMG 1.png", "IMG 2.png")
    (tmp_path / "train" / "IMG 1.png").unlink()
    (tmp_path / "trainannot" / "IMG 2.png").unlink()
    pairs, problems = listed(tmp_path, "".join(f"train/IMG {n}.png trainannot/IMG {n}.png\n" for n in (1, 2)) + "c.png c.png\n")
    assert pairs == []
    words = (
        "train.txt, line 1: {0}/train/IMG 1.png is missing; put it there or drop the line",
        "train.txt, line 2: {0}/trainannot/IMG 2.png is missing;",
        "train.txt, line 3: {0}/train/c.png is missing;",
        "train.txt, line 3: {0}/trainannot/c.png is missing;",
    )
    assert len(problems) == len(words)
    for problem, expected in zip(problems, words, strict=True):
        assert expected.format(tmp_path) in problem
        assert "restore" not in problem


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a.png", "line 1: 'a.png' is not two paths of files that exist; put a picture and its labels on it, divided by a tab"),
        ("x 1.png y 2.png", "is not two paths of files that exist"),
        ("a " * 100_000, "a a ...' is not two paths"),
        ("x" * 300 + " " + "y" * 300, "is not two paths"),
        ("a\0.png a.png", "is missing"),
        ("a a.png a.png a.png", "can be divided into two files in 2 ways; divide them by a tab"),
    ],
)
def test_lines_that_mean_nothing_or_too_much(tmp_path: Path, line: str, sentence: str):
    lay(tmp_path, "a.png", "a a.png", "a.png a.png", "a a.png a.png")
    pairs, (problem, *_) = listed(tmp_path, line)
    assert pairs == []
    assert sentence in problem
    assert len(problem) < 600


def test_an_empty_list(tmp_path: Path):
    lay(tmp_path, "a.png")
    for content in ("", "\n \n", b"\xef\xbb\xbf"):
        assert "lists no pictures" in listed(tmp_path, content)[1][0]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"\xff\xfe\x80", b"stra\xdfe.png stra\xdfe.png\n"])
def test_what_is_no_text(tmp_path: Path, content: bytes):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*train\.txt: it is no UTF-8 text \(.*\); save it as UTF-8"):
        read_lines(path)
    with pytest.raises(UserError, match=r"cannot read .*absent\.txt: No such file"):
        read_lines(tmp_path / "absent.txt")
    (problem,) = CamVid.list_files(tmp_path, "train").problems
    assert "it is no UTF-8 text" in problem


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_content_is_pairs_or_sentences(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content)
    folder = path.parent
    try:
        listing = read_pairs(path, folder.joinpath, folder.joinpath)
    except UserError:
        return
    assert listing.pairs or listing.problems
