"""Types of colours and of the normalisation of pictures in files, with bounds within which float32 gives numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Channel = Annotated[int, Field(ge=0, le=255)]
"""Value of one of a colour's channels red, green and blue."""

Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Mean of one channel of pictures scaled to 0..1; NaN and infinity are outside the bounds."""

Std = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Standard deviation, by which one channel is divided: neither zero nor less, NaN nor infinity."""
