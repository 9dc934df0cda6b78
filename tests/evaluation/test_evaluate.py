"""Evaluation of any forward function, and of compiled artifacts through it."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.classes import CAMVID, ClassSet
from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import artifact_predictor
from enet_tvm.size import Size

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def coded_samples(size=(48, 32), block=8):
    """Return pictures whose red channel is ten times their label."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(3):
        labels = rng.integers(0, 11, (size[1] // block, size[0] // block), np.uint8).repeat(block, 0).repeat(block, 1)
        samples.append((Image.fromarray(np.stack([labels * 10, labels, labels], axis=-1)), labels))
    return samples


def oracle(x):
    """Return logits that read the label off the red channel."""
    return -np.abs(x[:, :1] * 255 / 10 - np.arange(11, dtype=np.float32)[None, :, None, None])


def test_a_perfect_network_scores_one_also_at_another_size():
    samples = coded_samples()
    assert evaluate(oracle, samples, CAMVID, MEAN, STD).miou == 1
    seen = []

    def watched(x):
        seen.append(x.shape)
        return oracle(x)

    resized = evaluate(watched, samples, CAMVID, MEAN, STD, Size(96, 64))
    assert set(seen) == {(1, 3, 64, 96)}
    assert resized.pixels == sum(labels.size for _, labels in samples)
    assert 0.7 < resized.global_accuracy < 1


def test_a_constant_network_scores_the_share_of_its_class():
    samples = coded_samples()
    share = np.mean([labels == 4 for _, labels in samples])

    def constant(x):
        logits = np.zeros((1, 11, *x.shape[2:]), np.float32)
        logits[:, 4] = 1
        return logits

    metrics = evaluate(constant, samples, CAMVID, MEAN, STD)
    assert metrics.global_accuracy == pytest.approx(share)
    assert metrics.class_iou[4] == pytest.approx(share)
    assert metrics.class_average == pytest.approx(1 / 11)


def test_sizes_that_do_not_fit_and_other_class_counts_are_refused():
    with pytest.raises(UserError, match=r"28x32.*divisible by 8.*--size"):
        evaluate(oracle, coded_samples((28, 32), block=4), CAMVID, MEAN, STD)
    with pytest.raises(UserError, match="3 classes but the data set has 11"):
        evaluate(lambda x: x, coded_samples(), CAMVID, MEAN, STD)


def test_an_artifact_is_evaluated_by_the_same_code(tiny_artifact):
    model = artifact_predictor(tiny_artifact.directory, threads=1)
    four = ClassSet("four", model.classes, tuple((i, i, i) for i in range(4)), 255)
    samples = [(picture, labels % 4) for picture, labels in LabelledStreet(model.size, 3, 0)]
    ours = evaluate(model.forward, samples, four, model.mean, model.std, model.size)
    reference = evaluate(tiny_artifact.reference, samples, four, model.mean, model.std)
    assert ours.global_accuracy == pytest.approx(reference.global_accuracy, abs=0.01)
    model.check(four, model.size)
    with pytest.raises(UserError, match="4 classes and the data set camvid has 11"):
        model.check(CAMVID, model.size)
    with pytest.raises(UserError, match="compiled for 24x16, not 96x64"):
        model.check(four, Size(96, 64))
