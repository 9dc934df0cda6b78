"""Pictures to calibrate on: which ones of a data set, and the network's inputs that they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.data.source import open_samples
from enet_tvm.data.transforms import normalise
from enet_tvm.size import Size

PICTURES = 64
"""Number of pictures that int8 is calibrated on, unless another is asked for."""

SPLIT = "train"
"""Split that they are of."""


def evenly_spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, evenly spread."""
    return sorted({round(k * (count - 1) / max(1, min(most, count) - 1)) for k in range(min(most, count))})


class CalibrationInputs:
    """The inputs that a data set's pictures are to a network, one at a time, as often as they are asked for.

    Parameters
    ----------
    data : str
        Data set, as `enet_tvm.data.source.open_samples` takes it.
    size : Size
        Width and height of the network's input.
    mean, std : tuple of float
        Normalisation of the network.
    most : int
        Largest number of pictures, evenly spread over those of the split `SPLIT`.

    Raises
    ------
    UserError
        When there is no such data set.
    """

    def __init__(self, data: str, size: Size, mean: tuple[float, ...], std: tuple[float, ...], most: int = PICTURES) -> None:
        self._samples = open_samples(data, SPLIT, size)
        self._chosen = evenly_spread(len(self._samples), most)
        self._size, self._mean, self._std = size, mean, std

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield 1 x 3 x H x W float32 inputs."""
        for index in self._chosen:
            picture = self._samples[index][0]
            if picture.size != self._size:
                picture = picture.resize(self._size, Image.Resampling.BILINEAR)
            yield normalise(np.asarray(picture), self._mean, self._std)
