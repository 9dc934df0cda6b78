"""Checkpoints: what comes back, and what is refused."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_round_trip(tmp_path):
    weights = {"w": torch.arange(3.0)}
    history = [{"epoch": 1, "val_miou": None}, {"epoch": 2, "val_miou": 0.5}]
    before = Checkpoint("{}", ["a", "b"], 2, weights, weights, {"state": {0: {"step": torch.tensor(4.0)}}}, 7, 1.5, history)
    save_checkpoint(before, tmp_path / "new" / "c.pt")
    after = load_checkpoint(tmp_path / "new" / "c.pt")
    assert torch.equal(after.network.pop("w"), torch.arange(3.0))
    assert after.history == history
    assert (after.epoch, after.updates, after.seconds, after.classes) == (2, 7, 1.5, ["a", "b"])


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    # The last ones make PyTorch's unpickler take from an empty stack, and look into tables that are not there.
    "content",
    [b"", b"not a checkpoint", pickle.dumps({"format": 1}), b"\x80\x02.", b"\x80\x02u.", b"\x80\x02h\x05."],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a usable checkpoint.*--fresh"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [{"format": 2}, {"format": 1, "epoch": 3}, [1, 2], {"format": Evil()}])
def test_other_contents_are_refused(tmp_path, capsys, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(UserError, match="not a usable checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    assert "executed" not in capsys.readouterr().out


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_never_ends_in_another_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "garbage.pt"
    for start in (b"", b"\x80\x02", b"PK\x03\x04"):
        path.write_bytes(start + content)
        with pytest.raises(UserError, match="not a usable checkpoint"):
            load_checkpoint(path)


def test_a_checkpoint_of_before_the_pictures_were_noted(tmp_path):
    content = dict(vars(Checkpoint("{}", ["a"], 1, {}, {}, {}, 1, 1.0)))
    del content["pictures"], content["histogram"]
    torch.save({"format": 1} | content, tmp_path / "c.pt")
    after = load_checkpoint(tmp_path / "c.pt")
    assert after.pictures is after.histogram is None


@pytest.mark.parametrize("place", ["network", "average"])
def test_weights_that_are_no_numbers(tmp_path, place):
    states = {"network": {"w": torch.zeros(3)}, "average": {"w": torch.zeros(3)}}
    states[place]["w"][1] = torch.nan
    save_checkpoint(Checkpoint("{}", ["a"], 1, states["network"], states["average"], {}, 0, 0.0), tmp_path / "c.pt")
    with pytest.raises(UserError, match="1 of 3 values are NaN or infinite in 'w'"):
        load_checkpoint(tmp_path / "c.pt")
