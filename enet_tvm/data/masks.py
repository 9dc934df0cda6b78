"""Masks: files that say by a number, or by a colour, what each pixel of a picture shows.

Whatever reads a label file reads it here. A mask is taken as it is stored: it is never turned, whatever its EXIF data say,
and a number means itself, in 1, 2, 4, 8 or 16 bits, in a palette or as three equal channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import PictureHeader, opened, read_header, reading, require_one_frame

VOID = 255
"""Number that tools write for pixels that belong to no class, whatever number a data set has for them."""

_NUMBER_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "LA", "PA")
_WITH_ALPHA = ("RGBA", "LA", "PA")
_LOSSY_FORMATS = ("JPEG", "MPO")
# Pillow stretches grey of two and four bits to 0..255.
_STRETCH = {"2": 85, "4": 17}
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Transposition that undoes each of EXIF's orientations."""
_SHOWN_RANGES = 8
_WHITE = (127, 128, 254, 255, 65535)
"""Values that binary masks hold beside 0."""


def read_mask_header(path: Path) -> PictureHeader:
    """Return a mask's header; `stored` is its size, for a mask is never turned.

    Raises
    ------
    UserError
        When the file cannot be read, or its header shows that it holds no numbers: several frames, a lossy format, a
        colour space.
    """
    header = read_header(path)
    require_one_frame(header.frames, path)
    if header.format in _LOSSY_FORMATS:
        raise UserError(f"{path} is a JPEG file, whose compression changes labels; save masks without loss, as PNG")
    if header.mode not in (*_NUMBER_MODES, *_COLOUR_MODES):
        raise UserError(f"{path} is a picture in {header.mode}, not a map of one label a pixel; give the label files")
    return header


def stored_pixels(path: Path) -> NDArray[Any]:
    """Return the pixels of a mask as they lie in the file.

    Returns
    -------
    ndarray
        H x W numbers: grey, or places in a palette; of one bit, 0 and 1. H x W x 3 uint8 RGB of a coloured picture. Alpha is
        checked and left out.

    Raises
    ------
    UserError
        When the file cannot be read, is no mask (see `read_mask_header`), or is transparent anywhere.
    """
    header = read_mask_header(path)
    with opened(path) as image, reading(path):
        packing = _packing(image)
        image.load()
        # Pillow turns TIFF files, and these alone, while it decodes them.
        turned = header.format == "TIFF" and header.orientation in _BACK
        pixels = np.asarray(image.transpose(_BACK[header.orientation]) if turned else image)
    if header.mode in _COLOUR_MODES and ";16" in packing:
        raise UserError(f"{path} has 16 bits in each of its channels; save the mask as one channel, or in 8 bits")
    if header.mode in _WITH_ALPHA:
        if pixels[..., -1].min() < np.iinfo(np.uint8).max:
            raise UserError(
                f"{path} is transparent in places; save the mask without transparency, with the number of void there"
            )
        pixels = pixels[..., :-1]
    if pixels.ndim == 3:
        return pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if match := re.match(r"L;([24])", packing):
        return pixels // np.uint8(_STRETCH[match[1]])
    return pixels


def stored_colours(path: Path) -> NDArray[np.uint8]:
    """Return the colour of every pixel of a mask, H x W x 3 uint8 RGB; of a palette, what its places are drawn in.

    Raises
    ------
    UserError
        When the file cannot be read as a mask, or is grey in more than eight bits.
    """
    pixels = stored_pixels(path)
    if pixels.ndim == 3:
        return pixels
    if (colours := read_palette(path)) is not None:
        return colours[pixels]
    if pixels.max() > np.iinfo(np.uint8).max or pixels.dtype.kind == "f":
        raise UserError(f"{path} is grey in more than 8 bits, and colours are wanted; save the mask in colours as PNG")
    return np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2)


def read_palette(path: Path) -> NDArray[np.uint8] | None:
    """Return the palette of a mask, 256 x 3 uint8 RGB with places that it lacks black; None if it has none."""
    with opened(path) as image, reading(path):
        if image.mode != "P":
            return None
        image.load()
        listed = image.getpalette("RGB") or []
    palette = np.zeros((256, 3), np.uint8)
    palette.reshape(-1)[: len(listed)] = listed[: palette.size]
    return palette


def read_mask(path: Path) -> NDArray[Any]:
    """Return the number of every pixel of a mask.

    Returns
    -------
    ndarray
        H x W integers: grey values, places in a palette, or what three equal channels hold. They are not checked against any
        classes (see `as_labels`).

    Raises
    ------
    UserError
        When the file cannot be read as a mask, is coloured, or holds fractions.
    """
    pixels = stored_pixels(path)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise UserError(
                f"{path} is not a map of one label a pixel but coloured, {_colours(pixels)}; "
                "give the files that hold class numbers, or replace each colour by the number of its class"
            )
        return pixels[..., 0]
    if np.issubdtype(pixels.dtype, np.floating):
        whole = np.nan_to_num(pixels, nan=0.5).astype(np.int64)
        if (whole != pixels).any():
            raise UserError(f"{path} holds fractions, not a map of one label a pixel; save class numbers as PNG")
        return whole
    return pixels


def as_labels(stored: NDArray[Any], path: Path, largest: int, void: int | None = None) -> NDArray[np.uint8]:
    """Return the numbers of a mask as labels.

    Parameters
    ----------
    stored : ndarray
        H x W integers, as `read_mask` returns them.
    path : Path
        File of the mask, for the sentence.
    largest : int
        Largest label; the smallest is 0.
    void : int, optional
        A number beside them that stands for no class.

    Returns
    -------
    ndarray
        H x W uint8 labels.

    Raises
    ------
    UserError
        When there are other numbers, which the sentence names; or when there are only 0 and `void`, which is what a binary
        mask looks like.
    """
    least, most = int(stored.min()), int(stored.max())
    inside = least >= 0 and most <= largest
    if not inside:
        found = [int(number) for number in np.unique(stored)]
        strange = [number for number in found if not 0 <= number <= largest and number != void]
        if strange or found == [0, void]:
            raise UserError(f"{path} holds {_sentence(found, strange, largest, void)}")
    return stored.astype(np.uint8)


def _sentence(found: list[int], strange: list[int], largest: int, void: int | None) -> str:
    allowed = f"labels must lie in 0..{largest}" + ("" if void is None else f", or be {void} for void")
    common = math.gcd(*found)
    if found[0] == 0 and found[1:] in ([white] for white in _WHITE):
        return (
            f"labels 0 and {found[1]}: a binary mask? {allowed}, so replace {found[1]} (and 0, if need be) by the number of "
            "its class"
        )
    if len(found) > 2 * (largest + 1):
        return (
            f"{len(found)} numbers from {found[0]} to {found[-1]}; {allowed}. A picture, or a mask that was smoothed? "
            "Resize masks by the nearest pixel and save them as PNG"
        )
    what = f"label{'s' if len(strange) > 1 else ''} {in_ranges(strange)}; {allowed} (found: {in_ranges(found)})"
    if len(found) > 1 and common > 1 and found[-1] // common <= largest:
        return f"{what}. All are multiples of {common}: stretched to be seen? Divide them by it"
    return f"{what}. Do they count other classes? Give each pixel the number of its class"


def in_ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers in words: ``0..5, 7 and 255``; the middle of many is left out."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    words = ["..".join(map(str, part)) for part in parts]
    if len(words) > _SHOWN_RANGES:
        words = [*words[: _SHOWN_RANGES - 1], f"{len(words) - _SHOWN_RANGES} more", words[-1]]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _colours(pixels: NDArray[np.uint8]) -> str:
    """Return in words which colours occur."""
    packed = np.unique(pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    shown = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in packed[:_SHOWN_RANGES].tolist())
    return f"in {len(packed)} colours" + (f" such as {shown}" if len(packed) > _SHOWN_RANGES else f", {shown}")


def _packing(image: Image.Image) -> str:
    """Return how Pillow calls the arrangement of the stored bits, such as ``L;4``; empty if it does not say."""
    if not (tiles := getattr(image, "tile", ())):
        return ""
    arguments = tiles[0].args
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return first if isinstance(first, str) else ""
