"""Picture sizes as people write them: WIDTHxHEIGHT."""

from __future__ import annotations

import re
from typing import NamedTuple

from enet_tvm.errors import UserError

MULTIPLE = 8
"""ENet halves its input three times, so both sides must be divisible by this."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


DEFAULT_SIZE = Size(640, 360)
"""Size of the input when neither a user nor a target gives one: that of the paper's first figures."""


def parse_size(text: str) -> Size:
    """Parse ``WIDTHxHEIGHT``.

    Raises
    ------
    UserError
        When the text is not of that form, or a side is not a positive multiple of 8.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if not match:
        raise UserError(f"'{text}' is not a size; write WIDTHxHEIGHT, such as 640x360")
    size = Size(int(match[1]), int(match[2]))
    if min(size) < MULTIPLE or size.width % MULTIPLE or size.height % MULTIPLE:
        near = Size(*(max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in size))
        raise UserError(f"size {size} does not fit: width and height must be divisible by {MULTIPLE}; try {near}")
    return size
