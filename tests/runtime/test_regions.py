"""Regions: they are the label map again, of one class each, connected, and COCO's own library reads them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from enet_tvm.runtime.regions import regions

NAMES = ("a", "b", "c")
MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 2))
)


def decoded(segmentation):
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    return np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T.astype(bool)


def filled(outlines, shape):
    """Fill by the even-odd rule: a pixel is inside if an odd number of upright edges lies to its left."""
    crossed = np.zeros(shape, int)
    for outline in outlines:
        points = list(zip(outline[::2], outline[1::2], strict=True))
        for (x, y), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            assert (x == x2) != (y == y2)
            if x == x2:
                crossed[min(y, y2) : max(y, y2), x:] += 1
    return crossed % 2 == 1


def connected(mask):
    seen, reached = {tuple(np.argwhere(mask)[0])}, [tuple(np.argwhere(mask)[0])]
    while reached:
        y, x = reached.pop()
        for y2, x2 in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= y2 < mask.shape[0] and 0 <= x2 < mask.shape[1] and mask[y2, x2] and (y2, x2) not in seen:
                seen.add((y2, x2))
                reached.append((y2, x2))
    return len(seen) == mask.sum()


@given(MAPS)
def test_regions_are_the_label_map_again(labels):
    runs, outlines = regions(labels, NAMES, "rle"), regions(labels, NAMES, "polygons")
    again = np.full(labels.shape, 255, np.uint8)
    for one, other in zip(runs, outlines, strict=True):
        assert {**one, "segmentation": None} == {**other, "segmentation": None}
        mask = decoded(one["segmentation"])
        assert (filled(other["segmentation"], labels.shape) == mask).all()
        assert connected(mask)
        assert (again[mask] == 255).all()
        again[mask] = one["label"]
        assert one["class"] == NAMES[one["label"]]
        assert one["area"] == mask.sum()
        ys, xs = np.nonzero(mask)
        assert one["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        beside = np.zeros(labels.shape, bool)
        beside[1:] |= mask[:-1]
        beside[:-1] |= mask[1:]
        beside[:, 1:] |= mask[:, :-1]
        beside[:, :-1] |= mask[:, 1:]
        assert not (labels[beside & ~mask] == one["label"]).any()  # nothing of it is left to another region
    assert (again == labels).all()


@given(MAPS)
def test_pycocotools_reads_the_run_lengths(labels):
    coco = pytest.importorskip("pycocotools.mask")
    for region in regions(labels, NAMES, "rle"):
        packed = coco.frPyObjects(region["segmentation"], *labels.shape)
        assert (coco.decode(packed).astype(bool) == decoded(region["segmentation"])).all()
        assert coco.area(packed) == region["area"]
        assert coco.toBbox(packed).tolist() == region["bbox"]


def test_a_ring_has_an_outline_and_a_hole():
    labels = np.zeros((3, 3), np.uint8)
    labels[1, 1] = 1
    ring, hole = regions(labels, NAMES, "polygons")
    assert ring["segmentation"] == [[0, 0, 3, 0, 3, 3, 0, 3], [1, 1, 1, 2, 2, 2, 2, 1]]
    assert hole["segmentation"] == [[1, 1, 2, 1, 2, 2, 1, 2]]


def test_labels_without_a_class_are_no_region():
    assert regions(np.full((2, 2), 7, np.uint8), NAMES, "rle") == []
