from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from enet_tvm.runtime.labels import most_likely, resize_labels
from enet_tvm.size import Size


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)),
        # Few values, so that ties are common.
        elements=st.sampled_from([-1e30, -1.5, -0.0, 0.0, 1.0, 1.0000001, 3e38, float("inf"), float("-inf")]),
    )
)
def test_most_likely_is_argmax(logits: np.ndarray):
    original = logits.copy()
    labels = most_likely(logits)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.argmax(original, axis=0))
    np.testing.assert_array_equal(logits, original)


def test_as_many_classes_as_fit():
    logits = np.eye(256, dtype=np.float32)[:, None, :]
    np.testing.assert_array_equal(most_likely(logits), [np.arange(256)])


def test_resize_takes_the_nearest_and_invents_none():
    labels = np.array([[0, 9], [200, 255]], np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, Size(4, 6)), labels.repeat(3, axis=0).repeat(2, axis=1))
    assert resize_labels(labels, Size(2, 2)) is labels
    assert set(np.unique(resize_labels(labels, Size(7, 5)))) == {0, 9, 200, 255}
