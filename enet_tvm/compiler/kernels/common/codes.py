"""The meaning of the codes of a network's tensors, from the ranges that calibration saw."""

from __future__ import annotations

from collections.abc import Collection

from tvm import relax

from enet_tvm.compiler.dataflow import layer_of
from enet_tvm.compiler.quantisation.codes import IDENTITY, INPUT, Codes, Ranges
from enet_tvm.errors import UserError


class TensorCodes:
    """The meaning of codes (scale and zero), tensor by tensor.

    Parameters
    ----------
    inputs : collection of relax.Var
        The network's inputs, whose range is noted under `INPUT`; any other tensor's is that of the layer that made it.
    ranges : mapping
        Layer -> least and largest value of its output.
    """

    def __init__(self, inputs: Collection[relax.Var], ranges: Ranges) -> None:
        self._inputs = frozenset(inputs)
        self._ranges = ranges
        self._stored: dict[relax.Expr, Codes] = {}

    def stored(self, tensor: relax.Expr | None) -> Codes:
        """Return what the codes of a tensor mean as it is stored; of one without codes, the identity."""
        return IDENTITY if tensor is None else self._stored.get(tensor, IDENTITY)

    def note(self, tensor: relax.Var, codes: Codes) -> None:
        """Note the meaning of the codes that a tensor is stored as."""
        self._stored[tensor] = codes

    def spanning(self, tensor: relax.Var) -> Codes:
        """Return codes for the values of a tensor that is stored as floats.

        Raises
        ------
        UserError
            When calibration saw nothing of it.
        """
        return self.of_layer(INPUT if tensor in self._inputs else layer_of(tensor))

    def of_layer(self, layer: str) -> Codes:
        """Return codes for the values of a layer's output.

        Raises
        ------
        UserError
            When calibration saw nothing of it.
        """
        if layer not in self._ranges:
            raise UserError(f"the calibration has no range for layer '{layer}'; make it again with 'enet-tvm calibrate'")
        return Codes.of(*self._ranges[layer])
