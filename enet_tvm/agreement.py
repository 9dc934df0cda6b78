"""How far a compiled network may be from PyTorch: every limit, with its reason.

A limit is a share of pixels that must agree. What counts as agreeing, and what the two sides look at, differ from judge to
judge, and so do the limits:

========== =========================== ============== ========= ======= ======== ======
judge      looks at                    pixels agree   float32   float16 bfloat16 int8
========== =========================== ============== ========= ======= ======== ======
`PICTURES` pictures, or drawn streets  in the label   0.9999    0.99    0.99     0.97
`NOISE`    one random input            in the label   0.9999    0.97    0.97     0.90
`SEGNET`   one random input            in all logits  0.97
`EXPORT`   one random input            in all logits  0.999
========== =========================== ============== ========= ======= ======== ======

Tuning judges by `PICTURES`, on two drawn streets, and by `UNTUNED` where an artifact of shorter numbers fails that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PICTURES: Final[Mapping[str, float]] = {"float32": 0.9999, "float16": 0.99, "bfloat16": 0.99, "int8": 0.97}
"""Least share of pixels with PyTorch's label on pictures, by the dtype that the network computes in.

Rounding alone moves none in float32 but near-ties; shorter numbers move borders between classes by a pixel here and there.
The limit of ``verify`` (unless --min-agreement says another), of the demo, and of the judge of tuning.
"""

PICTURES_MIOU: Final[Mapping[str, float]] = {"float32": 0.0001, "float16": 0.002, "bfloat16": 0.002, "int8": 0.01}
"""Largest difference of the two mean IoUs, where pictures have labels, by the dtype that the network computes in.

This is what the pixels that may differ do to the result.
"""

NOISE: Final[Mapping[str, float]] = {"float32": 0.9999, "float16": 0.97, "bfloat16": 0.97, "int8": 0.9}
"""Least share of pixels with PyTorch's label on a random input, for a runner of ``bench`` whose speed is to count.

A random input has many pixels with two close logits, which rounding decides: below float32 the limit only tells wrong
arithmetic from rounding. Whether the rounding is acceptable is for `PICTURES` to say.
"""

UNTUNED: Final = 0.002
"""Share of pixels by which tuning may take an artifact of shorter numbers below the untuned one on the same drawn streets.

What short numbers cost on drawn streets is not for tuning to judge. Tuned kernels add in another order, which moves that many
labels in float16 and bfloat16; in int8 sums are exact.
"""

LOGIT_TOLERANCE: Final = 1e-3
"""Largest difference of each logit of a pixel that agrees by `SEGNET` and `EXPORT`, as a share of the largest logit."""

SEGNET: Final = 0.97
"""Least share of pixels with PyTorch's logits on a random input, for ENet and SegNet beside each other in float32.

Wrong arithmetic leaves none. SegNet compares eight million windows at 640x360; rounding decides the closest of them
differently, and one in the deepest stage moves a feature that covers a hundredth of the picture. PyTorch's float32 is no nearer
to its own float64: with random weights 0.1 % of the pixels leave the tolerance there, and 0.6 % of ours.
"""

EXPORT: Final = 0.999
"""Least share of pixels with PyTorch's logits in ONNX Runtime on a random input; one of three must have it.

A near-tie in a window may move a feature: at 480x320, PyTorch on AVX2 leaves PyTorch in float64 in 0.4 % of the pixels of one
input, by 0.3. Wrong arithmetic shows on every input.
"""
