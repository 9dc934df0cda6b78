"""Regions of a label map: one of each class and connected component, as COCO's run lengths or as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RegionShape = Literal["rle", "polygons"]


def regions(labels: NDArray[np.uint8], classes: Sequence[str], shape: RegionShape) -> list[dict[str, Any]]:
    """Return the connected components of every class, ready for JSON; pixels that touch at a corner only are not connected.

    Parameters
    ----------
    labels : ndarray
        H x W uint8 class numbers.
    classes : sequence of str
        Class names; labels beyond them belong to no region.
    shape : {"rle", "polygons"}
        Form of the segmentation: ``rle`` is COCO's uncompressed run length encoding: the lengths of runs of 0 and 1 in turn, 0
        first, down the columns. ``polygons`` are the outlines along the edges of the pixels, as x, y, x, y, ..., with outer
        ones clockwise (as one sees the picture) and those of holes counter-clockwise; filled by the even-odd rule they are the
        region again.

    Returns
    -------
    list of dict
        Regions with the keys ``class``, ``label``, ``area`` (pixels), ``bbox`` (x, y, width, height), ``segmentation``; by
        label, then from the top.
    """
    found: list[dict[str, Any]] = []
    components, count = _components(labels)
    order = np.argsort(components.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(components.ravel(), minlength=count))
    for places in np.split(order, ends[:-1]):
        ys, xs = np.divmod(places, labels.shape[1])
        label = int(labels[ys[0], xs[0]])
        if label >= len(classes):
            continue
        left, top = int(xs.min()), int(ys.min())
        width, height = int(xs.max()) - left + 1, int(ys.max()) - top + 1
        if shape == "rle":
            segmentation: Any = {"counts": _counts(xs * labels.shape[0] + ys, labels.size), "size": [*labels.shape]}
        else:
            mask = np.zeros((height, width), bool)
            mask[ys - top, xs - left] = True
            segmentation = _outlines(mask, left, top)
        found.append(
            {
                **{"class": classes[label], "label": label, "area": len(places)},
                **{"bbox": [left, top, width, height], "segmentation": segmentation},
            }
        )
    return sorted(found, key=lambda region: (region["label"], region["bbox"][1], region["bbox"][0]))


def _components(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int]:
    """Return which component every pixel is of, H x W, and how many there are: runs of the rows, joined where they touch."""
    height, width = labels.shape
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = (np.cumsum(starts.ravel()) - 1).reshape(height, width)
    touching = labels[1:] == labels[:-1]
    pairs = np.unique(np.stack([runs[:-1][touching], runs[1:][touching]], axis=1), axis=0)
    parent = list(range(int(runs[-1, -1]) + 1))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for above, below in pairs.tolist():
        one, other = root(above), root(below)
        parent[max(one, other)] = min(one, other)
    roots, number = np.unique([root(run) for run in range(len(parent))], return_inverse=True)
    return number.reshape(-1)[runs], len(roots)


def _counts(places: NDArray[np.int64], size: int) -> list[int]:
    """Return COCO's counts of a region whose pixels lie at these places, column by column."""
    places = np.sort(places)
    breaks = np.flatnonzero(np.diff(places) > 1)
    begins = places[np.concatenate([[0], breaks + 1])]
    ends = places[np.concatenate([breaks, [len(places) - 1]])] + 1
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    return [*counts, size - int(edges[-1])] if edges[-1] < size else list(counts)


def _outlines(mask: NDArray[np.bool_], left: int, top: int) -> list[list[int]]:
    """Return the closed outlines of a mask along the edges of its pixels, with corners only."""
    padded = np.pad(mask, 1)
    here = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each goes with the region on its right hand, as one sees the picture.
    sides = (
        (here & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (here & ~padded[1:-1, 2:], (1, 0), (0, 1)),
        (here & ~padded[2:, 1:-1], (1, 1), (-1, 0)),
        (here & ~padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for side, (right, down), step in sides:
        for y, x in np.argwhere(side).tolist():
            edges.setdefault((x + right, y + down), []).append(step)
    outlines = []
    while edges:
        start = min(edges, key=lambda point: (point[1], point[0]))
        point, step = start, edges[start][0]
        outline: list[int] = []
        first, before = step, None
        while True:
            if step != before:
                outline += [point[0] + left, point[1] + top]
            edges[point].remove(step)
            if not edges[point]:
                del edges[point]
            point, before = (point[0] + step[0], point[1] + step[1]), step
            if point == start and start not in edges:
                break
            # Where two corners meet, to the right: so it stays with its own pixel.
            turn = (-before[1], before[0])
            step = turn if turn in edges[point] else edges[point][0]
        if before == first:
            del outline[:2]
        outlines.append(outline)
    return outlines
