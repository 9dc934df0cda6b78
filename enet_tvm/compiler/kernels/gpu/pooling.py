"""Max pooling with window indices, and unpooling on its own, on a GPU: plain NCHW, an output in each thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.common.pooling import PoolingTemplate
from enet_tvm.compiler.kernels.common.template import OnlyPoint
from enet_tvm.compiler.kernels.gpu.building import for_threads, if_all, private
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import MaxPool2DWithWindow, MaxUnpool2D

Shape = tuple[int, int, int, int]

_THREADS = 256


class _PlanarPooling(PoolingTemplate):
    """A pooling or unpooling of plain NCHW tensors."""

    @classmethod
    def covers(cls, spec: MaxPool2DWithWindow | MaxUnpool2D, unit: GpuUnit) -> bool:
        """Whether it is any of them: there are no other layouts on a GPU."""
        return True


@dataclass(frozen=True)
class GpuMaxPool2DTemplate(_PlanarPooling):
    """2x2 max pooling with window indices of plain NCHW tensors.

    Attributes
    ----------
    spec : MaxPool2DWithWindow
        The pooling that it computes.
    """

    spec: MaxPool2DWithWindow
    spec_type: ClassVar[type] = MaxPool2DWithWindow

    def kernel(self, point: OnlyPoint) -> tvm.tirx.PrimFunc:
        """Return the kernel."""
        return gpu_max_pool2d_with_window(self.spec.data_shape)


@dataclass(frozen=True)
class GpuMaxUnpool2DTemplate(_PlanarPooling):
    """Unpooling by window indices of plain NCHW tensors.

    Attributes
    ----------
    spec : MaxUnpool2D
        The unpooling that it computes.
    """

    spec: MaxUnpool2D
    spec_type: ClassVar[type] = MaxUnpool2D

    def kernel(self, point: OnlyPoint) -> tvm.tirx.PrimFunc:
        """Return the kernel."""
        return gpu_max_unpool2d(self.spec.data_shape, self.spec.output_size)


def gpu_max_pool2d_with_window(shape: Shape) -> tvm.tirx.PrimFunc:
    """Return the kernel of 2x2 stride-2 pooling of an N x C x H x W tensor: data -> maxima, window indices.

    The last row or column of an odd plane belongs to no window.
    """
    n, channels, height, width = shape
    pooled = (n, channels, height // 2, width // 2)

    def body(data: Any, out: Any, window: Any) -> None:
        def element(picture: Any, channel: Any, row: Any, column: Any) -> None:
            values, best, place = private((4,)), private((1,)), private((1,), "int32")
            for position in range(4):
                a, b = divmod(position, 2)
                T.buffer_store(values, data[picture, channel, row * 2 + a, column * 2 + b], [position])
            T.buffer_store(best, values[0], [0])
            T.buffer_store(place, T.int32(0), [0])
            for position in (1, 2, 3):
                # Strictly greater: the first maximum wins, as in PyTorch.
                T.buffer_store(place, T.Select(values[position] > best[0], T.int32(position), place[0]), [0])
                T.buffer_store(best, T.max(best[0], values[position]), [0])
            T.buffer_store(out, best[0], [picture, channel, row, column])
            T.buffer_store(window, T.cast(place[0], "uint8"), [picture, channel, row, column])

        _for_elements(pooled, element)

    return prim_func({"data": (shape, "float32"), "out": (pooled, "float32"), "window": (pooled, "uint8")}, body)


def gpu_max_unpool2d(shape: Shape, output_size: tuple[int, int]) -> tvm.tirx.PrimFunc:
    """Return the kernel of unpooling by window indices: data, window -> out.

    Parameters
    ----------
    shape : tuple of int
        N x C x H x W of the input.
    output_size : (int, int)
        2H and 2W, or one more of either: a row or column of zeros.
    """
    n, channels, rows, columns = shape
    unpooled = (n, channels, *output_size)

    def body(data: Any, window: Any, out: Any) -> None:
        def element(picture: Any, channel: Any, row: Any, column: Any) -> None:
            place = (picture, channel, T.floordiv(row, 2), T.floordiv(column, 2))
            position = T.cast(T.floormod(row, 2) * 2 + T.floormod(column, 2), "uint8")
            tests = [window[place] == position]
            if output_size[1] != 2 * columns:
                tests.insert(0, place[3] < columns)
            if output_size[0] != 2 * rows:
                tests.insert(0, place[2] < rows)
            value = data[place]
            # Nested, because an index outside must not be read.
            for test in reversed(tests):
                value = tvm.tirx.if_then_else(test, value, T.float32(0))
            T.buffer_store(out, value, [picture, channel, row, column])

        _for_elements(unpooled, element)

    return prim_func({"data": (shape, "float32"), "window": (shape, "uint8"), "out": (unpooled, "float32")}, body)


def _for_elements(shape: Shape, element: Any) -> None:
    """Emit `element` (picture, channel, row, column) in one thread for each element of a tensor."""
    n, channels, rows, columns = shape
    total = channels * rows * columns
    with for_threads((-(-total // _THREADS), 1, n), (_THREADS, 1)) as (block, _, picture, lane, _unused):
        index = block * _THREADS + lane
        with if_all(None if total % _THREADS == 0 else index < total):
            plane, column = T.floordiv(index, columns), T.floormod(index, columns)
            element(picture, T.floordiv(plane, rows), T.floormod(plane, rows), column)
