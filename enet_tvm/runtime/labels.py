"""Label maps: made from logits, and resized."""

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
        C x H x W float32 logits, C at most 256.

    Returns
    -------
    ndarray
        H x W uint8 class numbers.
    """
    # numpy.argmax along the first axis gathers every pixel's logits one by one; whole planes without branches are
    # about ten times faster. Classes come in rising order, so a new best label is also the largest yet.
    best = logits[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for label, plane in enumerate(logits[1:], start=1):
        higher = (plane > best).view(np.uint8)
        np.maximum(labels, higher * np.uint8(label), out=labels)
        np.maximum(best, plane, out=best)
    return labels


def resize_labels(labels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return the label map at another size, H x W uint8; each pixel takes the label nearest to its centre."""
    if labels.shape == (size.height, size.width):
        return labels
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
