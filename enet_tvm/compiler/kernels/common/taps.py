"""Which kernel positions of a transposed convolution meet no inserted zero."""

from __future__ import annotations

from enet_tvm.compiler.ops import FusedConv2D


def transposed_taps(attrs: FusedConv2D) -> list[tuple[tuple[int, int], int, int, int]]:
    """Return the taps of a stride-2 transposed convolution as ((phase row, phase column), tap, dy, dx).

    Output pixel (2h + a, 2w + b) is the sum over its phase's taps of input pixel (h + dy, w + dx) times the weight
    at `tap` (row-major in the kernel). So no inserted zero is ever multiplied: a quarter of the work of the
    textbook form.
    """
    taps = []
    for phase in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for kh in range(attrs.kernel[0]):
            for kw in range(attrs.kernel[1]):
                dy, odd_y = divmod(phase[0] + attrs.padding[0] - kh, 2)
                dx, odd_x = divmod(phase[1] + attrs.padding[1] - kw, 2)
                if not odd_y and not odd_x:
                    taps.append((phase, kh * attrs.kernel[1] + kw, dy, dx))
    return taps
