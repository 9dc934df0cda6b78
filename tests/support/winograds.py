"""Convolutions that Winograd's algorithm computes."""

from __future__ import annotations

from hypothesis import strategies as st

from enet_tvm.compiler.ops import FusedConv2D, Layout


def convolution(
    n: int,
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    dilation: int,
    block: int,
    out_block: int,
    pads: tuple[int, int],
    kernel: tuple[int, int] = (3, 3),
) -> FusedConv2D:
    """Return a convolution of the picture's size; `pads` are columns of padding beside those needed."""
    down, across = (dilation * (taps // 2) for taps in kernel)
    return FusedConv2D(
        data_shape=(n, inputs, *size),
        out_shape=(n, outputs, *size),
        kernel=kernel,
        strides=(1, 1),
        padding=(down, across),
        dilation=(dilation if down else 1, dilation if across else 1),
        data_layout=Layout(block, across + pads[0]),
        out_layout=Layout(out_block, pads[1]),
    )


def any_convolution(data: st.DataObject, columns: int, kernel: tuple[int, int] = (3, 3)) -> FusedConv2D:
    """Draws a convolution of which no tile need divide the rows and columns, of any dilation, layout and padding."""
    dilation = data.draw(st.integers(1, 3), "dilation")
    block, out_block = (data.draw(st.sampled_from([4, 8, 16]), name) for name in ("input block", "output block"))
    return convolution(
        n=data.draw(st.integers(1, 2), "pictures"),
        inputs=block * data.draw(st.integers(1, 2), "input blocks"),
        outputs=out_block * data.draw(st.integers(1, 2), "output blocks"),
        size=(data.draw(st.integers(1, 14), "height"), columns * dilation + data.draw(st.integers(0, 20), "more columns")),
        dilation=dilation,
        block=block,
        out_block=out_block,
        pads=(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))),
        kernel=kernel,
    )
