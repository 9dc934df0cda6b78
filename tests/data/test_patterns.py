"""Pictures and masks find each other by what the wildcards of their patterns stand for."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.data.patterns import check_pattern, match_key, natural, pair_files, walk_files

NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


@pytest.mark.parametrize(
    ("pattern", "path", "key"),
    [
        ("images/*.png", "images/a b.png", ("a b",)),
        ("images/*.png", "images/a.PNG", ("a",)),
        ("images/*.*", "images/a.b.JPeG", ("a.b",)),
        ("images/*.*", "images/a.txt", None),
        ("images/**/*.*", "images/a.png", ("", "a")),
        ("images/**/*.*", "images/x/y/a.png", ("x/y", "a")),
        ("images/*.*", "images/x/a.png", None),
        ("**/*_mask.png", "x/a_mask.png", ("x", "a")),
        ("*/rgb/f?.png", "ride/rgb/f7.png", ("ride", "7")),
        ("./images/*.png", "images/[1].png", ("[1]",)),
        ("images/*.png", "images/a+(b).png", ("a+(b)",)),
    ],
)
def test_what_a_pattern_matches(pattern, path, key):
    assert match_key(pattern, path) == key


@given(st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: unicodedata.normalize("NFC", name)), st.data())
def test_any_names_are_paired_with_their_own(names, data):
    """Blanks, accents in either form, dots, quotation marks and wildcards in names are names."""
    pictures = [f"images/{name}.jpg" for name in names]
    masks = [f"masks/{data.draw(st.sampled_from([name, unicodedata.normalize('NFD', name)]))}_m.png" for name in names]
    pairing = pair_files([*masks, *pictures], ["images/*.*"], ["masks/*_m.png"])
    assert dict(zip(pictures, masks, strict=True)) == pairing.pairs
    assert not pairing.lone_pictures
    assert not pairing.lone_masks
    assert not pairing.doubles


@given(st.lists(st.tuples(st.sampled_from(["images", "masks"]), st.sampled_from("abcde"), st.sampled_from(["png", "bmp"]))))
def test_no_file_is_lost(files):
    """Each that matches is in a pair, or alone, or one of several of a name."""
    paths = {f"{folder}/{name}.{suffix}" for folder, name, suffix in files}
    pairing = pair_files(paths, ["images/*.*"], ["masks/*.*"])
    told = {*pairing.pairs, *pairing.pairs.values(), *pairing.lone_pictures, *pairing.lone_masks}
    assert told.union(*map(set, pairing.doubles)) == paths


def test_patterns_of_different_depth_pair_by_the_last_wildcard():
    pairing = pair_files(["in/day/a.png", "out/a.png", "in/night/a.png"], ["in/*/*.png"], ["out/*.png"])
    assert pairing.pairs == {"in/day/a.png": "out/a.png"}
    assert pairing.doubles == (("in/day/a.png", "in/night/a.png"),)


def test_what_fits_both_is_a_mask():
    pairing = pair_files(["a.png", "a_mask.png"], ["*.*"], ["*_mask.png"])
    assert pairing.pairs == {"a.png": "a_mask.png"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("images\\*.png", "back slashes"),
        ("/data/*.png", "leads out"),
        ("../x/*.png", "leads out"),
        ("C:/x/*.png", "leads out"),
        ("images/a.png", "no wildcard"),
        ("images/a.*", "no wildcard"),
    ],
)
def test_what_is_no_pattern(pattern, said):
    with pytest.raises(ValueError, match=said):
        check_pattern(pattern)


def test_numbers_sort_as_numbers():
    assert sorted(["f10", "f9", "f1", "e", "f"], key=natural) == ["e", "f", "f1", "f9", "f10"]


@given(st.sets(NAMES))
def test_any_names_can_be_sorted(names):
    assert sorted(names, key=natural) == sorted(set(names), key=natural)


def test_links_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.png").touch()
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(root)
    assert walk_files(root) == ["images/a.png"]
