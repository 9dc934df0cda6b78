"""Picture files: finding them, and reading any kind of them as RGB."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from enet_tvm.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""Files in a folder that are taken for pictures; a file given by name may have any suffix."""

# What Pillow's readers raise on files that are not what they seem.
_READ_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def load_picture(path: str | Path) -> Image.Image:
    """Read a picture file as an RGB image, rotated as its EXIF data say.

    Grey, palette, 16-bit, CMYK and other pictures are converted (see `as_rgb`); of an animation, the first frame.

    Raises
    ------
    UserError
        When there is no such file or it cannot be decoded.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return as_rgb(_upright(image))
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture of a known format; convert it to PNG or JPEG") from error
    except _READ_ERRORS as error:
        raise UserError(f"{path} cannot be read as a picture ({error}); is it damaged?") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _READ_ERRORS:
        return image  # broken EXIF data beside good pixels


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in mode RGB.

    Transparent pictures are laid on black. 16-bit grey keeps its upper eight bits; grey of 32-bit floats is taken
    as 0..1 if nothing exceeds 1, else as 0..255.

    Raises
    ------
    ValueError
        When a pixel of floats is NaN or infinite.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow opens 16-bit files as I or I;16 depending on the format, and would clip them at 255.
        values = np.asarray(image).astype(np.int64)
        grey = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
        return grey.convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite pixels")
        grey = Image.fromarray(np.clip(values * (255 if values.max(initial=0) <= 1 else 1), 0, 255).astype(np.uint8))
        return grey.convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("RGB")
    return image.convert("RGB")


def find_pictures(paths: Iterable[str | Path], exclude: str | Path | None = None) -> list[Path]:
    """Return picture files: those given, and all that lie in given folders and their sub-folders.

    Parameters
    ----------
    paths : iterable of str or Path
        Files and folders. Folders are searched for the usual suffixes, in sorted order; hidden files are left out.
    exclude : str, Path or None
        A folder not to search: where results go. Ignored if it is given itself.

    Raises
    ------
    UserError
        When a path does not exist, or a folder holds no pictures.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        path = path.expanduser()
        if path.is_dir():
            skipped = None if exclude is None or Path(exclude).resolve() == path.resolve() else Path(exclude).resolve()
            inside = _walk(path, skipped)
            if not inside:
                raise UserError(f"folder {path} holds no pictures; known suffixes are {', '.join(sorted(SUFFIXES))}")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise UserError(f"there is no file or folder {path}; check the path")
    if not found:
        raise UserError("no pictures were given; name files or folders")
    return list(found)


def _walk(folder: Path, skipped: Path | None) -> list[Path]:
    pictures = []
    for where, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (skipped is None or Path(where, name).resolve() != skipped)
        )
        pictures += [Path(where, name) for name in sorted(files) if not name.startswith(".") and _is_picture(name)]
    return sorted(pictures)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot read folder {error.filename}: {error.strerror}; check its permissions") from error


def output_names(pictures: Sequence[Path], inputs: Iterable[str | Path]) -> list[str]:
    """Return a distinct name for each picture's results, without suffix.

    A picture from a folder keeps its sub-folders below the folder given, such as ``night/0001``. Where two would
    get one name, the later one carries its suffix (``0001_jpg``), or else a number (``0001-2``).

    Parameters
    ----------
    pictures : sequence of Path
        As `find_pictures` returned them.
    inputs : iterable of str or Path
        What it was given.
    """
    folders = [folder for folder in (Path(path).expanduser() for path in inputs) if folder.is_dir()]
    names: list[str] = []
    taken: set[str] = set()
    for picture in pictures:
        folder = next((folder for folder in folders if picture.is_relative_to(folder)), picture.parent)
        base = picture.relative_to(folder).with_suffix("").as_posix()
        candidates = [base, f"{base}_{picture.suffix[1:]}", *(f"{base}-{number}" for number in range(2, len(pictures) + 2))]
        name = next(name for name in candidates if not _variants(name) & taken)
        taken |= _variants(name)
        names.append(name)
    return names


def _variants(name: str) -> set[str]:
    """Return the names that one picture's results may get, in lower case for file systems without case."""
    return {name.lower(), f"{name.lower()}_labels"}
