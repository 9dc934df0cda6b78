from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from enet_tvm.compiler.ops import PLANAR, Layout, pack, unpack

BLOCKS = st.sampled_from([4, 8, 16])


@settings(max_examples=12, deadline=None)
@given(
    block=BLOCKS,
    blocks=st.integers(1, 3),
    pad=st.integers(0, 3),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 19)),
    dtype=st.sampled_from(["float32", "uint8"]),
)
def test_packed_and_unpacked(relax_main, run_relax, block: int, blocks: int, pad: int, shape: tuple[int, int, int], dtype: str):
    n, height, width = shape
    layout, logical = Layout(block, pad), (n, block * blocks, height, width)
    x = (np.arange(np.prod(logical)) % 251 + 1).reshape(logical).astype(dtype)

    def body(b: relax.BlockBuilder, data: relax.Var) -> relax.Expr:
        packed = b.emit(pack(data, layout))
        return relax.Tuple([packed, b.emit(unpack(packed, layout))])

    packed, back = run_relax(relax_main(body, logical, dtypes=(dtype,)), x)
    assert np.array_equal(back, x)
    assert packed.shape == layout.physical(logical) == (n, blocks, height, width + 2 * pad, block)
    inside = packed[:, :, :, pad : pad + width]
    assert np.array_equal(inside, x.reshape(n, blocks, block, height, width).transpose(0, 1, 3, 4, 2))
    assert packed.astype(np.int64).sum() == x.astype(np.int64).sum(), "the padding is not zero"


def test_float16_is_rounded_where_it_is_packed(relax_main, run_relax):
    layout, logical = Layout(8, 1, "float16"), (1, 16, 3, 5)
    x = np.random.default_rng(0).standard_normal(logical, np.float32)

    def body(b: relax.BlockBuilder, data: relax.Var) -> relax.Expr:
        packed = b.emit(pack(data, layout))
        return relax.Tuple([packed, b.emit(unpack(packed, layout))])

    packed, back = run_relax(relax_main(body, logical), x)
    assert (packed.dtype, packed.shape) == (np.float16, (1, 2, 3, 7, 8))
    assert back.dtype == np.float32
    assert np.array_equal(back, x.astype(np.float16).astype(np.float32))


def test_plain_nchw_is_stored_as_it_is():
    assert Layout() == PLANAR
    assert PLANAR.physical((1, 7, 5, 3)) == (1, 7, 5, 3)


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="13 channels cannot be stored in blocks of 16"):
        Layout(16).physical((1, 13, 4, 4))
