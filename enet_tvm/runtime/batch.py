"""Many picture files through one segmenter, results written as PNG."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.machine import default_threads
from enet_tvm.runtime.overlay import check_opacity, overlay
from enet_tvm.runtime.pictures import frame_names, load_frames, output_names, read_header, taken_names
from enet_tvm.runtime.regions import RegionShape, regions
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.size import Size


@dataclass(frozen=True)
class Outcome:
    """Outcome of one picture.

    Attributes
    ----------
    picture : Path
        The file.
    overlay, labels : Path or None
        Files of the overlay and of the label map that were written.
    size : Size or None
        Size of the picture, upright.
    shares : dict of str to float or None
        Share of the picture that each class in it covers, 0 to 1; None without a result.
    regions : list of dict or None
        Regions of the picture, if they were asked for (see `enet_tvm.runtime.regions.regions`).
    threads : int
        Number of threads that the network used: fewer than it may while other work kept processors busy.
    network_ms, total_ms : float
        Duration in milliseconds of the network alone, and from the decoded picture to the label map at its size.
    error : str or None
        Sentence on why there is no result; None if there is one.
    frame, frames : int
        Number of this frame of an animation or page of a TIFF file, from 1, and number of all; 1 of 1 if it is neither.
    """

    picture: Path
    overlay: Path | None = None
    labels: Path | None = None
    size: Size | None = None
    shares: dict[str, float] | None = None
    regions: list[dict[str, Any]] | None = None
    threads: int = 0
    network_ms: float = 0.0
    total_ms: float = 0.0
    error: str | None = None
    frame: int = 1
    frames: int = 1


def segment_files(
    segmenter: Segmenter,
    pictures: Sequence[Path],
    inputs: Sequence[Path],
    output: Path,
    *,
    labels: bool = False,
    opacity: float = 0.5,
    region_shape: RegionShape | None = None,
) -> Iterator[Outcome]:
    """Segment picture files one by one and write overlays, going on after a picture that cannot be read.

    Frames of an animation and pages of a TIFF file are pictures of their own, and their results numbered: ``<name>_0001.png``.

    Parameters
    ----------
    segmenter : Segmenter
        Network that labels the pictures.
    pictures, inputs : sequence of Path
        Result of `find_pictures` and the paths it was given; they decide the names (see `output_names`).
    output : Path
        Folder for the results; made if missing.
    labels : bool
        Whether to also write ``<name>_labels.png``, an 8-bit grey PNG of class numbers.
    opacity : float
        Opacity of the overlay's colours, 0 to 1.
    region_shape : {"rle", "polygons"} or None
        Form of the regions in outcomes; None for no regions.

    Raises
    ------
    UserError
        When the opacity is not between 0 and 1, a result would take the place of one of the pictures (then none is written),
        or a result cannot be written.
    """
    check_opacity(opacity)
    names = output_names(pictures, inputs)
    _check_overwrites_none(
        pictures, [output / f"{name}{suffix}.png" for name in names for suffix in ("", "_labels")[: 1 + labels]]
    )
    taken = taken_names([*names, *_names_inside(output, pictures)])
    for picture, name in zip(pictures, names, strict=True):
        try:
            frames = read_header(picture).frames
        except UserError as error:
            yield Outcome(picture, error=str(error))
            continue
        with contextlib.closing(load_frames(picture)) as images:
            for frame, result in enumerate(frame_names(name, frames, taken), start=1):
                try:
                    image = next(images)
                except UserError as error:
                    yield Outcome(picture, error=str(error), frame=frame, frames=frames)
                    break
                outcome = _segment(segmenter, picture, image, output / result, region_shape, labels=labels, opacity=opacity)
                yield replace(outcome, frame=frame, frames=frames)


def _segment(
    segmenter: Segmenter,
    picture: Path,
    image: Image.Image,
    result: Path,
    region_shape: RegionShape | None,
    *,
    labels: bool,
    opacity: float,
) -> Outcome:
    manifest = segmenter.manifest
    started = time.perf_counter()
    x = segmenter.preprocess(image)
    before = time.perf_counter()
    logits = segmenter.forward(x)
    after = time.perf_counter()
    found = segmenter.labels(logits[0], Size(*image.size))
    done = time.perf_counter()
    overlay_path = result.with_name(f"{result.name}.png")
    _save(overlay(image, found, manifest.palette, opacity, manifest.classes), overlay_path)
    labels_path = result.with_name(f"{result.name}_labels.png") if labels else None
    if labels_path:
        _save(Image.fromarray(found), labels_path)
    return Outcome(
        picture,
        overlay=overlay_path,
        labels=labels_path,
        size=Size(*image.size),
        shares=_shares(found, manifest.classes),
        regions=regions(found, manifest.classes, region_shape) if region_shape else None,
        threads=segmenter.threads_now,
        network_ms=1e3 * (after - before),
        total_ms=1e3 * (done - started),
    )


def _names_inside(output: Path, pictures: Sequence[Path]) -> list[str]:
    """Return the names of pictures that lie in the folder for the results, which no frame's results may take."""
    folder = output.resolve()
    inside = (picture.resolve() for picture in pictures)
    return [path.relative_to(folder).with_suffix("").as_posix() for path in inside if folder in path.parents]


def _check_overwrites_none(pictures: Sequence[Path], results: Sequence[Path]) -> None:
    files = {picture.resolve() for picture in pictures}
    for result in results:
        if result.resolve() in files:
            raise UserError(f"a result would be written over the picture {result}; choose another folder for the results")


def _save(image: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


def _shares(labels: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    areas = np.bincount(labels.ravel(), minlength=len(classes))
    return {name: float(area / labels.size) for name, area in zip(classes, areas, strict=False) if area}


def summarise(outcomes: Sequence[Outcome], segmenter: Segmenter) -> dict[str, Any]:
    """Return counts, median milliseconds (None without results) and every picture's outcome, ready for JSON."""
    done = [outcome for outcome in outcomes if outcome.error is None]
    return {
        "network": segmenter.manifest.network,
        "size": str(segmenter.size),
        "target": segmenter.manifest.target.name,
        "threads": segmenter.threads,
        "processors": str(default_threads(cores=segmenter.manifest.target.core_list)),
        **({"cores": segmenter.cores} if segmenter.cores else {}),
        "pictures": len(done),
        "failed": len(outcomes) - len(done),
        "median_network_ms": statistics.median(outcome.network_ms for outcome in done) if done else None,
        "median_total_ms": statistics.median(outcome.total_ms for outcome in done) if done else None,
        "results": [_as_json(outcome) for outcome in outcomes],
    }


def _as_json(outcome: Outcome) -> dict[str, Any]:
    frame = outcome.frame if outcome.frames > 1 else None
    if outcome.error is not None:
        return {"picture": str(outcome.picture), "frame": frame, "error": outcome.error}
    return {
        "picture": str(outcome.picture),
        "frame": frame,
        "overlay": str(outcome.overlay),
        "labels": str(outcome.labels) if outcome.labels else None,
        "size": str(outcome.size),
        "shares": outcome.shares,
        **({"regions": outcome.regions} if outcome.regions is not None else {}),
        "threads": outcome.threads,
        "network_ms": outcome.network_ms,
        "total_ms": outcome.total_ms,
    }
