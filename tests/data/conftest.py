"""A data set of one pair, made as a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakePair = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Return a function that lists a pair in the CamVid layout for training and returns where its files belong."""

    def make(picture: str = "p.png", labels: str = "p.png", line: str | bytes | None = None) -> tuple[Path, Path]:
        for folder in ("train", "trainannot"):
            (tmp_path / folder).mkdir(exist_ok=True)
        line = f"/SegNet/train/{picture} /SegNet/trainannot/{labels}\n" if line is None else line
        (tmp_path / "train.txt").write_bytes(line.encode() if isinstance(line, str) else line)
        return tmp_path / "train" / picture, tmp_path / "trainannot" / labels

    return make
