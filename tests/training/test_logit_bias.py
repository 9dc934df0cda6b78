from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from enet_tvm.data.classes import CAMVID
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet
from enet_tvm.training.logit_bias import add_to_logits, collect_logits, fit_logit_bias

CLASSES = len(CAMVID)


def test_a_class_that_is_said_too_often_is_held_back():
    """Logits that are right but for one class, which is 1.5 too high, get it back."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 20_000).astype(np.uint8)
    logits = rng.normal(0, 0.5, (labels.size, CLASSES)).astype(np.float32)
    logits[np.arange(labels.size), labels] += 2
    logits[:, 3] += 1.5
    bias, before, after = fit_logit_bias(logits, labels, CAMVID)
    assert after > before + 0.1
    assert bias[3] <= -0.6
    assert np.abs(np.delete(bias, 3)).max() < 0.7


def test_right_logits_stay_as_they_are():
    labels = np.arange(CLASSES * 50, dtype=np.uint8) % CLASSES
    logits = np.eye(CLASSES, dtype=np.float32)[labels] * 10
    bias, before, after = fit_logit_bias(logits, labels, CAMVID)
    assert before == after == 1
    assert not bias.any()


def test_void_pixels_do_not_count():
    labels = np.full((8, 16), CAMVID.ignore_index, np.uint8)
    labels[:, :8] = 2
    pictures = [(Image.new("RGB", (16, 8)), labels)]
    logits, truth = collect_logits(
        lambda x: np.zeros((1, CLASSES, 8, 16), np.float32), pictures, CAMVID, (0,) * 3, (1,) * 3, 1.1
    )
    assert logits.shape == (64, CLASSES)
    assert (truth == 2).all()
    empty = [(Image.new("RGB", (16, 8)), np.full((8, 16), CAMVID.ignore_index, np.uint8))]
    with pytest.raises(UserError, match="no labelled pixel"):
        collect_logits(lambda x: np.zeros((1, CLASSES, 8, 16), np.float32), empty, CAMVID, (0,) * 3, (1,) * 3)


@torch.inference_mode()
def test_the_last_layer_takes_the_bias():
    network = ENet(CLASSES).eval()
    x = torch.randn(1, 3, 16, 16)
    before = network(x)
    bias = np.arange(CLASSES, dtype=np.float32)
    add_to_logits(network, bias)
    assert torch.allclose(network(x), before + torch.from_numpy(bias)[:, None, None], atol=1e-5)


def test_a_network_without_such_a_layer():
    with pytest.raises(UserError, match="no bias of 11 classes"):
        add_to_logits(nn.Sequential(nn.Conv2d(3, 5, 1)), np.zeros(11, np.float32))
