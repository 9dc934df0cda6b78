from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.evaluation.parity import ParityReport, load_reference, verify
from enet_tvm.files import sha256
from enet_tvm.networks import ENet, WeightsInfo, save_network

FOUR = ClassSet("four", ("a", "b", "c", "d"), ((0, 0, 0),) * 4, ignore_index=255)

GOOD = ParityReport(
    pictures=1,
    pixels=10,
    max_abs_logit_diff=1e-5,
    mean_abs_logit_diff=1e-6,
    label_agreement=1.0,
    worst_picture=0,
    worst_agreement=1.0,
)


def test_the_same_network_agrees(tiny_segmenter, tiny_network, pictures):
    report = verify(tiny_segmenter, tiny_network, [(picture, None) for picture in pictures])
    assert report.pictures == 3
    assert report.pixels == 3 * 16 * 24
    assert 0 <= report.mean_abs_logit_diff <= report.max_abs_logit_diff < 1e-4
    assert report.label_agreement > 0.999
    assert report.miou is report.miou_diff is None
    assert report.passes()


def test_figures_are_those_of_the_difference(tiny_segmenter, tiny_network, pictures):
    """One logit moved by a constant: its share of the mean, the labels it takes over, and the mIoU all follow from numpy."""
    shift = 0.5
    tiny_network.conv.bias = torch.nn.Parameter(torch.tensor([0.0, 0.0, shift, 0.0]))
    rng = np.random.default_rng(3)
    samples = [(picture, rng.integers(0, 4, (picture.height, picture.width)).astype(np.uint8)) for picture in pictures]
    report = verify(tiny_segmenter, tiny_network, samples, FOUR)
    assert report.max_abs_logit_diff == pytest.approx(shift, abs=1e-4)
    assert report.mean_abs_logit_diff == pytest.approx(shift / 4, abs=1e-4)

    agreements = []
    for picture in pictures:
        logits = tiny_segmenter.forward(tiny_segmenter.preprocess(picture))[0]
        moved = logits + np.array([0, 0, shift, 0], np.float32)[:, None, None]
        agreements.append(np.mean(logits.argmax(0) == moved.argmax(0)))
    assert report.label_agreement == pytest.approx(np.mean(agreements))
    assert report.differing_pixels == round((1 - np.mean(agreements)) * report.pixels)
    assert report.worst_picture == int(np.argmin(agreements))
    assert report.worst_agreement == pytest.approx(min(agreements))
    assert report.miou is not None
    assert report.miou_reference is not None
    assert report.miou_diff == abs(report.miou - report.miou_reference) > 0
    assert not report.passes()


def test_no_pictures(tiny_segmenter, tiny_network):
    with pytest.raises(UserError, match="no pictures"):
        verify(tiny_segmenter, tiny_network, [])


def test_a_nan_fails_and_is_null_in_json(tiny_segmenter, tiny_network, pictures):
    with torch.no_grad():
        tiny_network.conv.weight[0, 0] = math.nan
    report = verify(tiny_segmenter, tiny_network, [(pictures[0], None), (pictures[1], None)])
    assert math.isnan(report.max_abs_logit_diff)
    assert not report.passes(min_agreement=0.0)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["max_abs_logit_diff"] is None


@pytest.mark.parametrize(
    ("change", "limits", "passes"),
    [
        ({}, {}, True),
        ({"label_agreement": 0.9999}, {}, True),
        ({"label_agreement": 0.99989}, {}, False),
        ({"label_agreement": 0.99}, {"min_agreement": 0.9}, True),
        ({}, {"max_logit_diff": 1e-5}, True),
        ({}, {"max_logit_diff": 9e-6}, False),
    ],
)
def test_thresholds(change, limits, passes):
    assert dataclasses.replace(GOOD, **change).passes(**limits) is passes


def test_reference_must_be_what_was_compiled(tiny_segmenter, tmp_path):
    weights = tmp_path / "weights.safetensors"
    info = WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save_network(ENet(2), info, weights)
    with pytest.raises(UserError, match="was not compiled from"):
        load_reference(tiny_segmenter, weights)

    hashes = tiny_segmenter.manifest.hashes.model_copy(update={"weights": sha256(weights)})
    tiny_segmenter.manifest = tiny_segmenter.manifest.model_copy(update={"hashes": hashes})
    assert not load_reference(tiny_segmenter, weights).training
