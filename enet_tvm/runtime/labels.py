"""From logits to a label map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.size import Size


def most_likely(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the class with the largest logit at every pixel; the first of equals wins, as in `numpy.argmax`.

    Parameters
    ----------
    logits : ndarray
        C x H x W float32, C at most 256.

    Returns
    -------
    ndarray
        H x W uint8.
    """
    # numpy.argmax along the first axis gathers every pixel's logits one by one; whole planes are several times faster.
    best = logits[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for label, plane in enumerate(logits[1:], start=1):
        np.putmask(labels, plane > best, label)
        np.maximum(best, plane, out=best)
    return labels


def resize_labels(labels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return the label map at another size, H x W uint8; each pixel takes the label nearest to its centre."""
    if labels.shape == (size.height, size.width):
        return labels
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
