"""What a log must show to be kept. That whole networks are measured and compared is tested by whole sessions."""

from __future__ import annotations

import pytest

from enet_tvm.compiler.tuning_log import Parity
from enet_tvm.tuning.judge import objection

PARITY = Parity(pictures=1, inputs="", label_agreement=0.9, max_abs_logit_diff=1.0)


def test_a_model_must_say_less():
    """There is no noise to allow for."""
    same = {"untuned": 0.010, "tuned": 0.010}
    assert (
        objection(same, None, agrees=True, modelled=True) == "the tuned network takes 10.00 ms, not less than the untuned one"
    )
    assert objection({**same, "tuned": 0.009}, None, agrees=True, modelled=True) == ""


@pytest.mark.parametrize(
    ("medians", "agrees", "reason"),
    [
        ({"untuned": 0.010, "tuned": 0.009}, True, ""),
        ({"untuned": 0.010, "tuned": 0.010}, True, ""),
        ({"untuned": 0.010, "tuned": 0.009, "old": 0.0095}, True, ""),
        (
            {"untuned": 0.010, "tuned": 0.009, "old": 0.008},
            True,
            "with the log that is there the network takes 8.00 ms, which is less",
        ),
        ({"untuned": 0.010, "tuned": 0.011}, True, "the tuned network takes 11.00 ms, not less than the untuned one"),
        (
            {"untuned": 0.010, "tuned": 0.001},
            False,
            "the tuned network does not agree with PyTorch: 90.0000% of the labels are the same",
        ),
    ],
)
def test_faster_than_without_and_than_before_and_right(medians: dict[str, float], agrees: bool, reason: str):
    assert objection(medians, PARITY, agrees=agrees) == reason
