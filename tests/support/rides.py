"""A data set of CamVid's layout whose few random pictures are of several rides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FRAMES = {
    "train": [
        "0006R0_f00930",
        "0001TP_006690",
        "0001TP_006720",
        "0001TP_006750",
        "0016E5_00390",
        "0016E5_08640",
        "0001TP_006780",
    ],
    "val": ["0016E5_07959", "0016E5_07961", "0016E5_07963", "0006R0_f00960"],
}


def write_rides(root: Path) -> Path:
    """Write the data set, and return its directory."""
    rng = np.random.default_rng(0)
    for split, frames in FRAMES.items():
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for name in frames:
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(root / split / f"{name}.png")
            Image.fromarray(rng.integers(0, 12, (16, 24), np.uint8)).save(root / f"{split}annot" / f"{name}.png")
        (root / f"{split}.txt").write_text("".join(f"{split}/{name}.png {split}annot/{name}.png\n" for name in frames))
    return root
