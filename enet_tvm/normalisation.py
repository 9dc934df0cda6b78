"""What a file may say of colours and of the normalisation of pictures: bounds within which float32 gives numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Channel = Annotated[int, Field(ge=0, le=255)]
"""One of a colour's red, green and blue."""

Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Of one channel of pictures scaled to 0..1; NaN and infinity are outside the bounds."""

Std = Annotated[float, Field(ge=1e-6, le=1e6)]
"""By which one channel is divided: neither zero nor less, NaN nor infinity."""
