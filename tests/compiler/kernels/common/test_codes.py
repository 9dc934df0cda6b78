from __future__ import annotations

import pytest
from tvm import relax

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.quantisation.codes import IDENTITY, Codes
from enet_tvm.errors import UserError


def test_a_tensor_has_the_range_of_what_made_it():
    kind = relax.TensorType((1, 3, 4, 4), "float32")
    picture, layer, unpacked = (relax.Var(name, kind) for name in ("x", "down.act", "down.act#nchw"))
    codes = TensorCodes([picture], {"input": (0.0, 255.0), "down.act": (-1.0, 1.0)})
    assert codes.spanning(picture) == Codes.of(0.0, 255.0)
    assert codes.spanning(layer) == codes.spanning(unpacked) == codes.of_layer("down.act") == Codes.of(-1.0, 1.0)
    with pytest.raises(UserError, match="no range for layer 'other'"):
        codes.spanning(relax.Var("other", kind))


def test_only_what_was_noted_is_stored_as_codes():
    tensor = relax.Var("x", relax.TensorType((1, 3, 4, 4), "float32"))
    codes = TensorCodes([tensor], {})
    assert codes.stored(tensor) == codes.stored(None) == IDENTITY
    codes.note(tensor, Codes(0.5, 3))
    assert codes.stored(tensor) == Codes(0.5, 3)
