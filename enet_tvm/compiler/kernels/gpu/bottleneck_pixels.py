"""Which pixels of a picture a block of a bottleneck has, and where they lie in shared memory.

A block's pixels are numbered by *slots*, and a thread has vectors of neighbouring slots, `lanes` vectors apart. Mostly they are
pixels one after the other, row by row. Where something is computed of whole cells of 2x2 pixels, the first half of the slots is
a piece of an even row, and the second half what lies below it: then a thread with two vectors has whole cells.

Threads that narrow by a 2x2 convolution with stride 2 have pixels of one of the four places in a cell each. These lie side by
side for them in shared memory, in runs, one for each place, between which a gap keeps the banks of those apart that write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.gpu.building import WARP


@dataclass(frozen=True)
class PixelOrder:
    """The pixels of the blocks of a launch.

    Attributes
    ----------
    height, width : int
        Extents of the plane.
    block_pixels : int
        Pixels of a block.
    in_cells : bool
        Whether blocks have whole cells of 2x2 pixels; height and width are even then.
    """

    height: int
    width: int
    block_pixels: int
    in_cells: bool = False

    @property
    def blocks(self) -> int:
        """Blocks for a plane, the last of which may be filled in part."""
        return -(-self.height * self.width // self.block_pixels)

    def inside(self, block: Any, slot: Any) -> Any | None:
        """Return the test that a slot of a block is a pixel of the plane, None where all are."""
        total = self.height * self.width
        if total % self.block_pixels == 0:
            return None
        return self._along_rows(block, slot) < (total // 2 if self.in_cells else total)

    def place(self, block: Any, slot: Any, beside: Any = 0) -> tuple[Any, Any]:
        """Return the row and column of a slot of a block, or of one of its vector, `beside` slots further."""
        if not self.in_cells:
            pixel = block * self.block_pixels + slot + beside
            return T.floordiv(pixel, self.width), T.floormod(pixel, self.width)
        along, below = self._along_rows(block, slot), T.floordiv(slot, self.block_pixels // 2)
        return T.floordiv(along, self.width) * 2 + below, T.floormod(along, self.width) + beside

    def cell_place(self, cell: Any) -> tuple[Any, Any]:
        """Return the row and column of a cell of the plane among the cells."""
        return T.floordiv(cell, self.width // 2), T.floormod(cell, self.width // 2)

    def _along_rows(self, block: Any, slot: Any) -> Any:
        """Return how far a slot is along the rows, of two rows together where blocks have cells."""
        if not self.in_cells:
            return block * self.block_pixels + slot
        half = self.block_pixels // 2
        return block * half + T.floormod(slot, half)


@dataclass(frozen=True)
class CellRuns:
    """Pixels in a row of shared memory by their places in their cells.

    Attributes
    ----------
    pixels, lanes : int
        Pixels of a thread, and threads side by side along them.
    vector : int
        Pixels that a thread loads at once.
    """

    pixels: int
    lanes: int
    vector: int

    @property
    def run(self) -> int:
        """Pixels of a place in their cells that lie side by side."""
        return self.lanes // 4 * self.vector

    @property
    def stride(self) -> int:
        """Distance of the vectors of a thread: a run of each place, and a gap."""
        return 4 * self.run + self.run % WARP

    @property
    def length(self) -> int:
        """Values of a row of shared memory."""
        return self.pixels // self.vector * self.stride

    def of_thread(self, start: int, lane: Any) -> Any:
        """Return where a thread's pixel `start`, the first of a vector, lies; all of its pixels have its `position`."""
        return start // self.vector * self.stride + lane * self.vector

    def position(self, lane: Any) -> Any:
        """Return the place in their cells of a thread's pixels, 0 to 3, row by row."""
        return T.floordiv(lane, self.lanes // 4)

    def of_cell(self, position: int, cell: Any) -> Any:
        """Return where the pixel of a cell of the block lies that has a place in it."""
        return T.floordiv(cell, self.run) * self.stride + position * self.run + T.floormod(cell, self.run)
