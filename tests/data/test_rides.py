"""Splits by ride: no frame is on both sides, whatever splits it came from."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rides import FRAMES, write_rides

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.rides import Block, fitted_data, hold_out, judged_data, open_splits, ride_of, training_data
from enet_tvm.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_rides(tmp_path_factory.mktemp("rides"))


def names(samples):
    return [picture.stem for picture, _ in samples.pairs]


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("0006R0", Block("0006R0")),
        ("0001TP:-31", Block("0001TP", -31)),
        ("0001TP:-31:", Block("0001TP", -31)),
        ("0016E5::68", Block("0016E5", None, 68)),
        ("0016E5:10:20", Block("0016E5", 10, 20)),
    ],
)
def test_what_a_block_says(text, block):
    assert Block.parse(text) == block
    assert Block.parse(str(block)) == block


@pytest.mark.parametrize("text", ["", ":3", "0006R0:a", "0006R0:1:2:3", "0006R0:1.5"])
def test_what_says_no_block_is_refused(text):
    with pytest.raises(UserError, match="names no frames of a ride"):
        Block.parse(text)


def test_a_ride_is_held_out_whole_in_all_splits(root):
    rest, held = hold_out(open_splits(str(root), "train,val"), [Block("0006R0")])
    assert names(held) == ["0006R0_f00930", "0006R0_f00960"]
    assert len(rest) == 9
    assert "0006R0" not in {ride_of(picture) for picture, _ in rest.pairs}


def test_the_last_frames_are_last_by_name_not_by_list(root):
    assert names(judged_data(str(root), "train", ["0001TP:-2"])) == ["0001TP_006750", "0001TP_006780"]
    assert names(judged_data(str(root), "train", ["0001TP::2"])) == ["0001TP_006690", "0001TP_006720"]


def test_frames_of_another_split_that_lie_within_a_block_are_not_trained_on(root):
    rest, held = hold_out(open_splits(str(root), "train,val"), [Block("0016E5", None, 3)])
    assert sorted(names(held)) == ["0016E5_00390", "0016E5_07959", "0016E5_07961"]
    assert [name for name in names(rest) if name.startswith("0016E5")] == ["0016E5_08640", "0016E5_07963"]


@given(st.sampled_from(["0001TP", "0006R0", "0016E5"]), st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5))
def test_sides_are_disjoint_and_complete(root, ride, start, stop):
    samples = open_splits(str(root), "train,val")
    ordered = sorted(name for name in names(samples) if name.startswith(ride))
    if not ordered[start:stop]:
        with pytest.raises(UserError, match="holds none of"):
            hold_out(samples, [Block(ride, start, stop)])
        return
    rest, held = hold_out(samples, [Block(ride, start, stop)])
    assert not set(names(rest)) & set(names(held))
    assert sorted(names(rest) + names(held)) == sorted(names(samples))
    assert sorted(names(held)) == ordered[start:stop]


def test_a_frame_that_is_in_two_splits_goes_to_one_side(root, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(root, copied)
    for folder in ("", "annot"):
        shutil.copy(copied / f"train{folder}" / "0006R0_f00930.png", copied / f"val{folder}" / "0006R0_f00930.png")
    with (copied / "val.txt").open("a") as file:
        file.write("val/0006R0_f00930.png valannot/0006R0_f00930.png\n")
    rest, held = hold_out(open_splits(str(copied), "train,val"), [Block("0006R0", None, 1)])
    assert names(held) == ["0006R0_f00930"] * 2
    assert "0006R0_f00930" not in names(rest)


def test_pictures_of_joined_splits_are_those_of_their_files(root):
    joined = open_splits(str(root), "train,val/2")
    assert names(joined) == FRAMES["train"] + FRAMES["val"][::2]
    picture, labels = joined[len(FRAMES["train"]) + 1]
    expected = CamVid(root, "val")[2]
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected[0]))
    np.testing.assert_array_equal(labels, expected[1])


@pytest.mark.parametrize("splits", ["train,train", "train,", "", "val/0", "val/x", "val/2/3"])
def test_what_is_no_list_of_splits_is_refused(root, splits):
    with pytest.raises(UserError, match="is no list of splits"):
        open_splits(str(root), splits)


def test_what_judges_a_training(root):
    usual = training_data(str(root))
    assert (names(usual.train), names(usual.val)) == (FRAMES["train"], FRAMES["val"])
    assert usual.description == {"train": "train", "val": "val"}
    everything = training_data(str(root), "train,val")
    assert (len(everything.train), everything.val) == (11, None)
    held = training_data(str(root), "train,val/2", ["0006R0", "0001TP:-1"])
    assert names(held.val) == ["0006R0_f00930", "0001TP_006780"]
    assert held.description == {"train": "train,val/2 without 0006R0, 0001TP:-1", "val": "0006R0, 0001TP:-1 of train,val/2"}


def test_what_is_fitted_later_sees_what_was_trained_on(root):
    for held_out in ([], ["0006R0"]):
        trained = training_data(str(root), "train", held_out).train
        assert names(fitted_data(str(root), "train", held_out)) == names(trained)
    with pytest.raises(UserError, match="none is left to train on"):
        fitted_data(str(root), "train", ["0001TP", "0006R0", "0016E5"])


def test_a_training_without_val_needs_no_val_split(root, tmp_path):
    for name in ("train", "trainannot", "train.txt"):
        (tmp_path / name).symlink_to(root / name)
    assert len(training_data(str(tmp_path), "train", ["0006R0"]).val) == 1
    with pytest.raises(UserError, match=r"val\.txt"):
        training_data(str(tmp_path))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (["0005VD"], "no picture is of ride '0005VD'; give one of 0001TP, 0006R0, 0016E5"),
        (["0001TP:9"], "'0001TP:9' holds none of the 4 frames"),
        (["0001TP", "0006R0", "0016E5"], "none is left to train on"),
    ],
)
def test_what_cannot_be_held_out_is_refused(root, held_out, message):
    with pytest.raises(UserError, match=message):
        training_data(str(root), "train", held_out)


@pytest.mark.parametrize(("splits", "held_out"), [("train,val", []), ("train", ["0006R0"])])
def test_the_drawn_street_has_no_rides(splits, held_out):
    with pytest.raises(UserError, match="of no ride"):
        training_data("synthetic", splits, held_out)
