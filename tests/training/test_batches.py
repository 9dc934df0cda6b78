"""Batches: several processes see together what one would alone."""

import dataclasses
import os
import signal
import threading

import pytest
import torch

from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.training.batches import PackedSamples, epoch_batches, prefetched
from enet_tvm.training.processes import Processes
from enet_tvm.training.recipe import AugmentationRecipe, RareRecipe, Settings

STREET = LabelledStreet(Size(64, 48), 9, 1)
SETTINGS = Settings(batch_size=4, crop="32x24")


@pytest.fixture(scope="module")
def samples():
    return PackedSamples(STREET, STREET.class_set)


def epoch(samples, number, **where):
    return list(epoch_batches(samples, SETTINGS, 5, number, dataclasses.replace(Processes(), **where)))


def test_shares_make_up_the_batch(samples):
    whole = epoch(samples, 0)
    assert [pictures.shape for pictures, _ in whole] == [(4, 3, 24, 32)] * 2
    shares = [epoch(samples, 0, rank=rank, count=2) for rank in range(2)]
    for (pictures, labels), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))
        torch.testing.assert_close(pictures, torch.cat([part[0] for part in parts]))


def test_shares_make_up_the_batch_whatever_is_mixed(samples):
    rich = SETTINGS.model_copy(
        update={
            "rare": RareRecipe(below=0.05, windows=0.5, paste=0.7, class_mix=0.5),
            "augmentation": AugmentationRecipe(exposure=(-2.0, 1.0), white_balance=0.3, gamma=0.5, noise=0.05),
        }
    )
    assert samples.rare(0.05).classes
    whole = list(epoch_batches(samples, rich, 5, 0, Processes()))
    shares = [list(epoch_batches(samples, rich, 5, 0, Processes(rank=rank, count=2))) for rank in range(2)]
    for (pictures, labels), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))
        torch.testing.assert_close(pictures, torch.cat([part[0] for part in parts]))
    assert not any(torch.equal(rich[1], plain[1]) for rich, plain in zip(whole, epoch(samples, 0), strict=True))


def test_chance_depends_on_seed_and_epoch_alone(samples):
    assert torch.equal(epoch(samples, 3)[1][0], epoch(samples, 3)[1][0])
    assert not torch.equal(epoch(samples, 3)[0][0], epoch(samples, 4)[0][0])


def test_a_batch_that_cannot_be_shared_is_refused(samples):
    with pytest.raises(UserError, match="3 processes cannot share batches of 4 evenly"):
        epoch(samples, 0, count=3)


def test_prefetching_changes_nothing_and_passes_errors_on(samples):
    direct = epoch(samples, 1)
    ahead = list(prefetched(epoch_batches(samples, SETTINGS, 5, 1, Processes())))
    assert all(torch.equal(a, b) for pair in zip(direct, ahead, strict=True) for a, b in zip(*pair, strict=True))

    def broken():
        yield 1
        raise UserError("the disk is on fire")

    received = []
    with pytest.raises(UserError, match="on fire"):
        received += list(prefetched(broken()))
    stopped = prefetched(iter(range(1, 1000)))
    assert next(stopped) == 1
    stopped.close()


def test_prefetching_is_not_gone_on_with_in_a_forked_process():
    """The thread that makes the next batch is in the parent alone; the child would wait for it for ever."""
    slow, go_on = iter(range(1, 4)), threading.Event()

    def batches():
        for number in slow:
            if number == 2:
                go_on.wait()
            yield number

    ahead = prefetched(batches())
    assert next(ahead) == 1
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            next(ahead)
        except UserError as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    assert list(ahead) == [2, 3]
