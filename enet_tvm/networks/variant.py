"""Variants of ENet: what implementations decide differently, as options of one network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Size, Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks.tensors import convolution_weight

Activation = Literal["prelu", "relu"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ENetVariant:
    """Options of `enet_tvm.networks.ENet`; the defaults are those of the paper and its authors' code.

    Attributes
    ----------
    epsilon : float
        Epsilon of the batch norms.
    biases : bool
        Whether the convolutions have biases that the authors gave one: the initial, the middle and the transposed ones.
    initial_pool : {2, 3}
        Window of the initial block's pooling, which has stride 2: 2x2, or 3x3 padded by 1.
    inner_width : {"output", "input"}
        End of a bottleneck whose width the inner width is a quarter of, where the two differ.
    asymmetric_first : {"horizontal", "vertical"}
        First half of an asymmetric convolution: 1x5 or 5x1.
    normalise_between : bool
        Whether batch norm and activation stand between these halves too.
    activate_expansion : bool
        Whether the main branch is activated before the shortcut is added, except where the resolution doubles.
    slopes : {"channel", "layer"}
        Whether a PReLU has a slope per channel, or one.
    encoder_activation, decoder_activation : {"prelu", "relu"}
        Non-linearity of the encoder and of the decoder.
    upsampling_kernel : {3, 2}
        Height and width of the kernels of the transposed convolutions inside bottlenecks.
    head_kernel : {2, 3}
        Height and width of the last transposed convolution's kernel.
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
        """Return the options that differ from the paper's, as plain data."""
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

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], told: Mapping[str, Any], source: str) -> ENetVariant:
        """Return the variant that tensors show by their names and shapes, and `told` of what they do not show.

        Raises
        ------
        UserError
            When a convolution that shows it is missing, or an option is unknown or does not fit.
        """

        def shape(key: str) -> Size:
            return convolution_weight(tensors, key, source).shape

        slopes = [tensors[key] for key in ("initial.act.weight", "bottleneck5_1.act.weight") if key in tensors]
        encoder = "prelu" if "initial.act.weight" in tensors else "relu"
        halves = shape("bottleneck2_3.conv.0")
        shown: dict[str, Any] = {
            "biases": "initial.conv.bias" in tensors,
            "inner_width": "input" if shape("bottleneck1_0.project.0")[0] == 4 else "output",
            "asymmetric_first": "vertical" if halves[2] > halves[3] else "horizontal",
            "normalise_between": "bottleneck2_3.conv.4.weight" in tensors,
            "encoder_activation": encoder,
            "decoder_activation": "prelu" if "bottleneck5_1.act.weight" in tensors else "relu",
            "upsampling_kernel": shape("bottleneck4_0.conv.0")[2],
            "head_kernel": shape("fullconv")[2],
        }
        # An activation without slopes leaves no trace.
        if slopes:
            shown["slopes"] = "layer" if slopes[0].numel() == 1 else "channel"
            shown["activate_expansion"] = any(f"bottleneck{block}.expand.2.weight" in tensors for block in ("1_1", "4_1"))
        if wrong := sorted(key for key in told.keys() & shown.keys() if told[key] != shown[key]):
            key = wrong[0]
            raise UserError(f"{source}: its tensors show {key} = {shown[key]}, and not {told[key]}; leave that option out")
        return cls.from_json({**told, **shown})


def parse_variant(settings: Sequence[str]) -> dict[str, Any]:
    """Return options of a network that were written as ``key=value``, with values as JSON has them or as words.

    Whether a network has such options is for its `enet_tvm.networks.definition.VariantSchema` to say.

    Raises
    ------
    UserError
        When one is not written like that.
    """
    content: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"'{setting}' is not an option; write it as key=value, such as epsilon=1e-5")
        try:
            content[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            content[key.strip()] = value.strip()
    return content


PAPER = ENetVariant()
