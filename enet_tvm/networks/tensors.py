"""Single tensors of a state dict that somebody gives."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from enet_tvm.errors import UserError


def convolution_weight(tensors: Mapping[str, Tensor], layer: str, source: str) -> Tensor:
    """Return the weight of a convolution, a tensor of four dimensions.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict.
    layer : str
        Dotted name of the convolution.
    source : str
        Name of the tensors' origin, which begins the sentence.

    Raises
    ------
    UserError
        When there is none.
    """
    key = f"{layer}.weight"
    if key not in tensors or tensors[key].dim() != 4:
        raise UserError(f"{source} has no convolution '{key}'; give another file")
    return tensors[key]
