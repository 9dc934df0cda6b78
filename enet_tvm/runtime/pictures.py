"""Picture files: finding them, and reading any kind of them as RGB.

Everything that shows a picture to a network reads it here, training as much as a device, so that both see the same pixels.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from enet_tvm.errors import UserError
from enet_tvm.size import Size

Channels = Literal["rgb", "bgr"]
SUFFIXES = frozenset({".apng", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""Suffixes of files in a folder that are taken for pictures; a file given by name may have any suffix."""

# What Pillow's readers raise on files that are not what they seem.
_READ_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, struct.error, Image.DecompressionBombError)

# Other formats also count "frames", but those are no further pictures: a phone's JPEG (MPO) adds previews and depth, an icon
# its sizes, a Photoshop file its layers.
_FORMATS_WITH_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_TIFF_SUBFILE_TYPE, _TIFF_REDUCED_OR_MASK = 254, 0b101
_PNG_SIGNATURE_LENGTH = 8
_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_TURNED_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class PictureHeader:
    """Header of a picture file: what it says of itself before its pixels.

    Attributes
    ----------
    stored : Size
        Size of the picture as it is stored, before its EXIF rotation.
    orientation : int
        EXIF orientation, 2..8 for a picture that is to be turned or mirrored; 1 for one that lies upright.
    frames : int
        Number of frames of an animation or pages of a document; 1 for any other picture.
    mode, format : str
        Pillow's names of the pixel mode and of the file format.
    """

    stored: Size
    orientation: int
    frames: int
    mode: str
    format: str

    @property
    def size(self) -> Size:
        """Size of the picture upright."""
        return Size(*self.stored[::-1]) if self.orientation in _TURNED_SIDEWAYS else self.stored


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Pillow raises of a file inside the block into one sentence; its warnings are left out.

    Raises
    ------
    UserError
        When there is no such file or it cannot be decoded.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture of a known format; convert it to PNG or JPEG") from error
    except _READ_ERRORS as error:
        raise UserError(f"{path} cannot be read as a picture ({error}); is it damaged?") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file without decoding it; what is done with it goes into a block of `reading`.

    Raises
    ------
    UserError
        When there is no such file or it is no picture.
    """
    with reading(path):
        # Given a name, Pillow maps plain TIFF files into memory, and confuses rows and columns of those to be turned.
        file = path.open("rb")
    with file:
        with reading(path):
            image = Image.open(file)
        with image:
            yield image


def read_header(path: str | Path) -> PictureHeader:
    """Read what a picture file says of itself, without decoding its pixels.

    Raises
    ------
    UserError
        When there is no such file or it is no picture.
    """
    path = Path(path).expanduser()
    with opened(path) as image, reading(path):
        stored, mode, kind = _stored_size(image), image.mode, str(image.format)
        orientation = _orientation(image, path)
        return PictureHeader(stored, orientation, len(_frame_places(image)), mode, kind)


def load_picture(path: str | Path) -> Image.Image:
    """Read a picture file as an RGB image, rotated as its EXIF data say.

    Grey, palette, 16-bit, CMYK and other pictures are converted (see `as_rgb`).

    Raises
    ------
    UserError
        When there is no such file, it cannot be decoded, or it holds several pictures (see `load_frames`).
    """
    path = Path(path).expanduser()
    with opened(path) as image, reading(path):
        places = _frame_places(image)
        require_one_frame(len(places), path)
        return _decoded(image, places[0])


def load_frames(path: str | Path) -> Generator[Image.Image, None, None]:
    """Read every frame of an animation or page of a TIFF file as `load_picture` reads a picture.

    Yields
    ------
    PIL.Image.Image
        RGB image of each frame; of any other picture, the only one. Pages that are reduced copies of others (TIFF) and a
        picture for viewers without animation (PNG) are left out.

    Raises
    ------
    UserError
        When there is no such file or it cannot be decoded; frames before the damage have been yielded by then.
    """
    path = Path(path).expanduser()
    with opened(path) as image:
        with reading(path):
            places = _frame_places(image)
        for place in places:
            with reading(path):
                frame = _decoded(image, place)
            yield frame


def require_one_frame(frames: int, path: Path) -> None:
    """Raise UserError when a file holds several pictures where one is wanted."""
    if frames > 1:
        raise UserError(
            f"{path} holds {frames} frames or pages, and one picture is wanted; save each that is meant to a file of its own"
        )


def _frame_places(image: Image.Image) -> list[int]:
    """Return which of the frames that Pillow counts are pictures in their own right."""
    count = getattr(image, "n_frames", 1) if image.format in _FORMATS_WITH_FRAMES else 1
    if count == 1:
        return [0]
    places = list(range(count))
    if image.format == "PNG" and image.info.get("default_image"):
        return places[1:]
    if image.format == "TIFF":
        places = [place for place in places if not _subfile_type(image, place) & _TIFF_REDUCED_OR_MASK] or [0]
        image.seek(0)
    return places


def _subfile_type(image: Image.Image, place: int) -> int:
    image.seek(place)
    return int(image.tag_v2.get(_TIFF_SUBFILE_TYPE, 0))  # type: ignore[attr-defined]


def _decoded(image: Image.Image, place: int) -> Image.Image:
    if place:
        image.seek(place)
    image.load()
    try:
        upright = ImageOps.exif_transpose(image)
    except _READ_ERRORS:
        upright = image.copy()  # broken EXIF data beside good pixels
    return as_rgb(upright)


def _stored_size(image: Image.Image) -> Size:
    if image.format != "TIFF":
        return Size(*image.size)
    tags = image.tag_v2  # type: ignore[attr-defined]
    return Size(tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength])


def _orientation(image: Image.Image, path: Path) -> int:
    try:
        # Pillow decodes a PNG without EXIF data to the end, to see whether they follow its pixels.
        quick = image.format == "PNG" and not _has_late_metadata(path)
        exif = Image.Image.getexif(image) if quick else image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except _READ_ERRORS:
        return 1
    return orientation if orientation in range(2, 9) else 1


def _has_late_metadata(path: Path) -> bool:
    """Return whether a PNG has metadata after its pixels."""
    pixels = False
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE_LENGTH)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            pixels |= kind == b"IDAT"
            if pixels and kind in _PNG_METADATA:
                return True
            file.seek(length + 4, os.SEEK_CUR)
    return False


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in mode RGB.

    Transparent pictures are laid on black. 16-bit grey keeps its upper eight bits; grey of 32-bit floats is taken
    as 0..1 if nothing exceeds 1, else as 0..255.

    Raises
    ------
    ValueError
        When a pixel of floats is NaN or infinite.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
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


def require_channels(picture: Any, channels: Channels) -> None:
    """Raise UserError unless `channels` is an order of channels, and for an image of PIL, which knows its own, ``"rgb"``."""
    if channels not in ("rgb", "bgr"):
        raise UserError(f"channels come as 'rgb' or 'bgr', not {channels!r}; give one of them")
    if channels == "bgr" and isinstance(picture, Image.Image):
        raise UserError("a PIL image is RGB; give channels='bgr' with the array that OpenCV returned")


def rgb_pixels(pixels: NDArray[np.uint8], channels: Channels) -> NDArray[np.uint8]:
    """Return an H x W x 3 array, whose channels are in the order `channels`, as RGB and contiguous."""
    require_channels(pixels, channels)
    return np.ascontiguousarray(pixels if channels == "rgb" else pixels[:, :, ::-1])


def find_pictures(paths: Iterable[str | Path], exclude: str | Path | None = None) -> list[Path]:
    """Return picture files: those given, and all that lie in given folders and their sub-folders.

    Parameters
    ----------
    paths : iterable of str or Path
        Files and folders. Folders are searched for the usual suffixes, in sorted order; hidden files are left out.
    exclude : str, Path or None
        Folder not to search, such as that of the results. Ignored if it is given itself.

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
        Picture files, as `find_pictures` returned them.
    inputs : iterable of str or Path
        Files and folders that `find_pictures` was given.
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


def frame_names(name: str, frames: int, taken: set[str]) -> list[str]:
    """Return a distinct name for the results of each frame of a picture.

    Parameters
    ----------
    name : str
        Name of the picture, as `output_names` made it; a file of one frame keeps it.
    frames : int
        Number of frames; they are numbered ``name_0001``, ``name_0002``.
    taken : set of str
        Names that are taken, as `taken_names` returned them for all pictures; the new ones are added.
    """
    if frames == 1:
        return [name]
    digits = max(4, len(str(frames)))
    for number in itertools.count(1):
        stem = {1: name, 2: f"{name}_frame"}.get(number, f"{name}_frame-{number - 1}")
        names = [f"{stem}_{frame:0{digits}}" for frame in range(1, frames + 1)]
        if taken.isdisjoint(new := taken_names(names)):
            break
    taken |= new
    return names


def taken_names(names: Iterable[str]) -> set[str]:
    """Return all names that the results of pictures so called may get, in lower case."""
    return set().union(*map(_variants, names))


def _variants(name: str) -> set[str]:
    """Return the names that one picture's results may get, in lower case for file systems without case."""
    return {name.lower(), f"{name.lower()}_labels"}
