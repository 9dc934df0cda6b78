"""Where implementations of ENet differ: what is not in the paper's table, as options of one network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from enet_tvm.errors import UserError

Activation = Literal["prelu", "relu"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ENetVariant:
    """Options of `enet_tvm.networks.ENet`; the defaults are those of the paper and its authors' code.

    Attributes
    ----------
    epsilon : float
        Of the batch norms.
    biases : bool
        Whether the convolutions have biases that the authors gave one: the initial, the middle and the transposed ones.
    initial_pool : {2, 3}
        Window of the initial block's pooling, which has stride 2: 2x2, or 3x3 padded by 1.
    inner_width : {"output", "input"}
        The width of which a bottleneck's inner one is a quarter, where the two differ.
    asymmetric_first : {"horizontal", "vertical"}
        Which half of an asymmetric convolution comes first: 1x5 or 5x1.
    normalise_between : bool
        Whether batch norm and activation stand between these halves too.
    activate_expansion : bool
        Whether the main branch is activated before the shortcut is added, except where the resolution doubles.
    slopes : {"channel", "layer"}
        Whether a PReLU has a slope per channel, or one.
    encoder_activation, decoder_activation : {"prelu", "relu"}
    upsampling_kernel : {3, 2}
        Of the transposed convolutions inside bottlenecks.
    head_kernel : {2, 3}
        Of the last transposed convolution.
    decoder_dropout : float
        Probability of spatial dropout in the decoder's bottlenecks.
    """

    epsilon: float = Field(default=1e-3, gt=0, lt=1)
    biases: bool = True
    initial_pool: Literal[2, 3] = 2
    inner_width: Literal["output", "input"] = "output"
    asymmetric_first: Literal["horizontal", "vertical"] = "horizontal"
    normalise_between: bool = False
    activate_expansion: bool = False
    slopes: Literal["channel", "layer"] = "channel"
    encoder_activation: Activation = "prelu"
    decoder_activation: Activation = "relu"
    upsampling_kernel: Literal[2, 3] = 3
    head_kernel: Literal[2, 3] = 2
    decoder_dropout: float = Field(default=0.0, ge=0, lt=1)

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the paper, as plain data."""
        return {key: value for key, value in asdict(self).items() if value != getattr(PAPER, key)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ENetVariant:
        """Return the variant that `to_json` described.

        Raises
        ------
        UserError
            When a key is unknown or its value does not fit.
        """
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "variant"
            raise UserError(f"'{where}' is not an option of ENet with a value that fits: {first['msg']}; correct it") from error


def parse_variant(settings: Sequence[str]) -> dict[str, Any]:
    """Return options of `ENetVariant` that were written as ``key=value``, with values as JSON has them or as words.

    Raises
    ------
    UserError
        When one is not written like that, is unknown or does not fit.
    """
    content: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"'{setting}' is not an option of ENet; write it as key=value, such as epsilon=1e-5")
        try:
            content[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            content[key.strip()] = value.strip()
    ENetVariant.from_json(content)
    return content


PAPER = ENetVariant()
