"""Discovery of a data set in a directory: which pictures and masks belong together, and what the masks hold."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.data.class_list import read_classes
from enet_tvm.data.classes import CLASS_SETS, ClassSet
from enet_tvm.data.masks import in_ranges, read_mask_header, read_palette, stored_pixels
from enet_tvm.data.patterns import Pairing, natural, pair_files
from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import SUFFIXES, read_header
from enet_tvm.size import MULTIPLE, Size

Colour = tuple[int, int, int]
Track = Callable[[Sequence[str], str], Iterable[str]]
"""Passes through files, with a word for what is done, and may show how far it is."""

_MASK_WORDS = (
    *("mask", "masks", "label", "labels", "annot", "annotation", "annotations", "gt", "seg", "segmentation", "segmentations"),
    *("groundtruth", "ground_truth", "target", "targets", "labelids", "segmentationclass", "segmentationclasspng", "l", "y"),
)
_MASK_SUFFIX = re.compile(rf"[-_ .]({'|'.join(sorted(_MASK_WORDS, key=len, reverse=True))})$", re.IGNORECASE)
_PICTURE_SUFFIX = re.compile(r"[-_ .](rgb|image|img|photo|picture|color|colour|leftimg8bit)$", re.IGNORECASE)
_MOST_ENDINGS = 6
_LOSSY = (".jpg", ".jpeg")
_WHITE = (127, 128, 254, 255, 65535)
_VOID_VALUES = (255, 65535)
_MOST_COLOURS = 256
_MOST_VALUES = 255
_MOST_COUNTED = 4096
_SHOWN = 10
_LARGE = Size(1024, 1024)
_SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_CLASS_FILES = ("classes.txt", "labels.txt", "label_names.txt", "class_names.txt", "classes.json")
_LABEL_MAPS = ("labelmap.txt", "label_colors.txt")


@dataclass(frozen=True)
class Patterns:
    """Patterns of the picture files and of the mask files."""

    pictures: tuple[str, ...]
    masks: tuple[str, ...]
    pairing: Pairing


def find_patterns(paths: Sequence[str], pictures: Sequence[str] = (), masks: Sequence[str] = ()) -> Patterns | None:
    """Return the patterns that pair most of some files, None if none pairs any.

    Parameters
    ----------
    paths : sequence of str
        Relative paths with forward slashes.
    pictures, masks : sequence of str
        Patterns that are given; the others are looked for.
    """
    files = [path for path in paths if Path(path).suffix.lower() in SUFFIXES]
    given = (tuple(pictures), tuple(masks))
    tried = [given] if all(given) else [(given[0] or found[0], given[1] or found[1]) for found in _candidates(files)]
    best: Patterns | None = None
    for of_pictures, of_masks in dict.fromkeys(tried):
        found = Patterns(of_pictures, of_masks, pair_files(files, of_pictures, of_masks))
        if found.pairing.pairs and (best is None or _rank(found.pairing) < _rank(best.pairing)):
            best = found
            if len(found.pairing.pairs) * 2 == len(files):
                break
    return best


def _rank(pairing: Pairing) -> tuple[int, int, int]:
    """Return a sorting key, smallest for patterns that pair most files and, of those, leave the fewest over."""
    left_over = len(pairing.lone_pictures) + len(pairing.lone_masks)
    return -len(pairing.pairs), len(pairing.doubles), left_over


def _candidates(files: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield patterns of pictures and of masks: folders beside each other, endings of names, kinds of files."""
    folders = sorted({path.rpartition("/")[0] for path in files if "/" in path})
    parts = [folder.split("/") for folder in folders]
    lossy = {path.rpartition("/")[0] for path in files if path.lower().endswith(_LOSSY)}
    named: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    others: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    words = sorted({(depth, part) for folder in parts for depth, part in enumerate(folder)})
    for depth, mask in words:
        for other_depth, picture in words:
            if depth != other_depth or mask == picture or not _beside(parts, depth, picture, mask):
                continue
            pair = _folder_patterns(depth, picture, mask)
            if _is_mask_word(mask) and not _is_mask_word(picture):
                named.append(pair)
            elif not _is_mask_word(picture) and not any(mask in folder.split("/") for folder in lossy):
                others.append(pair)
    yield from named
    endings = _endings(files, _MASK_SUFFIX)
    for ending in endings:
        suffixes = sorted({Path(path).suffix.lower() for path in files if Path(path).stem.endswith(ending)} - {*_LOSSY})
        yield ("**/*.*",), tuple(f"**/*{ending}{suffix}" for suffix in suffixes) or (f"**/*{ending}.*",)
    if any(path.lower().endswith(_LOSSY) for path in files):
        kinds = tuple(f"**/*{kind}" for kind in sorted({Path(path).suffix.lower() for path in files}) if kind in _LOSSY)
        yield kinds, ("**/*.png",)
    yield from others
    for of_pictures, of_masks in [*named, ((("**/*.*",), ("**/*.*",)))]:
        for picture_ending in ("", *_endings(files, _PICTURE_SUFFIX)):
            for mask_ending in endings:
                yield (
                    tuple(pattern.replace("*.*", f"*{picture_ending}.*") for pattern in of_pictures),
                    tuple(pattern.replace("*.*", f"*{mask_ending}.*") for pattern in of_masks),
                )


def _endings(files: Sequence[str], known: re.Pattern[str]) -> list[str]:
    """Return the endings of names that say what a file is, the most frequent first."""
    found = Counter(match[0] for path in files if (match := known.search(Path(path).stem)))
    return [ending for ending, _ in found.most_common(_MOST_ENDINGS)]


def _beside(parts: Sequence[Sequence[str]], depth: int, picture: str, mask: str) -> bool:
    """Return whether two folders differ in nothing but this part of their path."""
    known = {tuple(part) for part in parts}
    at_depth = [other for other in known if len(other) > depth and other[depth] == picture]
    return any(
        len(folder) > depth and folder[depth] == mask and any(folder[:depth] == other[:depth] for other in at_depth)
        for folder in known
    )


def _folder_patterns(depth: int, picture: str, mask: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    before = "**/" if depth else ""
    # train_images/ and train_masks/, or train/ and trainannot/: what they share is the split, and stays open.
    shared = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(picture, mask, strict=False)))
    if shared and shared.strip("-_ ").lower() in {word for words in _SPLIT_FOLDERS.values() for word in words}:
        picture, mask = f"*{picture[len(shared) :]}", f"*{mask[len(shared) :]}"
    return (f"{before}{picture}/**/*.*",), (f"{before}{mask}/**/*.*",)


def _is_mask_word(folder: str) -> bool:
    lowered = folder.lower()
    last = re.split(r"[-_ .]", lowered)[-1]
    return lowered in _MASK_WORDS or last in _MASK_WORDS or lowered.endswith(("annot", "masks", "labels", "mask"))


@dataclass
class MaskCounts:
    """What masks hold, counted over all of them.

    Attributes
    ----------
    values : Counter of int
        Number of pixels by stored number.
    colours : Counter of (int, int, int)
        Number of pixels by RGB colour, of masks that are coloured.
    bits : Counter of str
        Number of masks by how they are stored, in words.
    palette : dict of int to (int, int, int)
        RGB colour of each number, of masks with a palette.
    palettes_differ : bool
        Whether a number has several colours in the palettes.
    problems : list of str
        Sentences on the masks that could not be read.
    """

    values: Counter[int] = field(default_factory=Counter)
    colours: Counter[Colour] = field(default_factory=Counter)
    bits: Counter[str] = field(default_factory=Counter)
    palette: dict[int, Colour] = field(default_factory=dict)
    palettes_differ: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def coloured(self) -> bool:
        """Whether the masks are to be read by their colours."""
        return bool(self.bits["colours"]) or self.palettes_differ


_STORED = {"1": "1 bit", "L": "8 bits", "P": "a palette", "I;16": "16 bits", "I": "16 bits", "I;16B": "16 bits", "F": "floats"}


def count_masks(root: Path, masks: Sequence[str], track: Track | None = None) -> MaskCounts:
    """Return what masks hold.

    Raises
    ------
    UserError
        When none can be read, or they hold more colours or numbers than classes can have.
    """
    counts = MaskCounts()
    for mask in track(masks, "counting") if track else masks:
        path = root / mask
        try:
            pixels, mode = stored_pixels(path), read_mask_header(path).mode
            palette = read_palette(path)
        except UserError as error:
            counts.problems.append(str(error))
            continue
        _count(counts, pixels, mode, palette)
        if len(counts.colours) > _MOST_COLOURS or len(counts.values) > _MOST_COUNTED:
            what = f"{len(counts.colours)} colours" if counts.coloured else f"{len(counts.values)} numbers"
            raise UserError(
                f"the masks hold more than {what} by {path}, and there can be {_MOST_VALUES} classes; are they smoothed, or "
                "pictures? Name both kinds of files with --pictures and --masks, and save masks without smoothing as PNG"
            )
    if counts.problems and not counts.bits:
        raise UserError(f"no mask can be read: {counts.problems[0]}")
    return counts


def _count(counts: MaskCounts, pixels: NDArray[Any], mode: str, palette: NDArray[np.uint8] | None) -> None:
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        counts.bits["colours"] += 1
        packed, found = np.unique(pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True)
        for colour, count in zip(packed[: _MOST_COLOURS + 1].tolist(), found.tolist(), strict=False):
            counts.colours[colour >> 16, colour >> 8 & 255, colour & 255] += count
        return
    grey = pixels[..., 0] if pixels.ndim == 3 else pixels
    counts.bits["8 bits" if pixels.ndim == 3 else _STORED.get(mode, mode)] += 1
    values, found = np.unique(grey, return_counts=True)
    tallied = dict(zip((int(value) for value in values[: _MOST_COUNTED + 1]), found.tolist(), strict=False))
    counts.values.update(tallied)
    for value, count in tallied.items():
        colour = (value, value, value)
        if palette is not None:
            red, green, blue = palette[value].tolist()
            colour = (red, green, blue)
            counts.palettes_differ |= counts.palette.setdefault(value, colour) != colour
        if min(colour) >= 0 and max(colour) <= 255:
            counts.colours[colour] += count


@dataclass(frozen=True)
class FoundClasses:
    """Classes as masks and a list of names suggest them.

    Attributes
    ----------
    names : tuple of str
        Class names.
    values : tuple of int
        Number of each class in masks; empty for masks of colours.
    palette : tuple of (int, int, int) or None
        RGB colours of the classes; None if nothing gives them.
    void : tuple of int or of (int, int, int)
        Numbers, or colours, that stand for no class.
    said : tuple of str
        Sentences on what was assumed.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    palette: tuple[Colour, ...] | None
    void: tuple[int, ...] | tuple[Colour, ...]
    said: tuple[str, ...]


def find_classes(counts: MaskCounts, given: ClassSet | None) -> FoundClasses:
    """Return what the numbers or colours in masks stand for.

    Parameters
    ----------
    counts : MaskCounts
        Numbers or colours in the masks.
    given : ClassSet, optional
        Classes that a user names.

    Raises
    ------
    UserError
        When the names do not fit what the masks hold, or there is but one class.
    """
    found = _of_colours(counts, given) if counts.coloured else _of_numbers(counts, given)
    if len(found.names) < 2:
        raise UserError(
            f"the masks hold one class only, '{', '.join(found.names)}', and a network tells at least two apart; give masks "
            "with a number for the background too"
        )
    return found


def _shown(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_SHOWN]) + (", ..." if len(parts) > _SHOWN else "")


def _of_numbers(counts: MaskCounts, given: ClassSet | None) -> FoundClasses:
    held = sorted(counts.values)
    total = sum(counts.values.values())
    shown = _shown([f"{value} ({counts.values[value] / total:.1%})" for value in held])
    stored = " and ".join(f"{kind} ({count})" for kind, count in counts.bits.most_common())
    said = [f"masks hold numbers, stored in {stored}: {shown} of the pixels"]
    if held[0] == 0 and held[1:] in ([white] for white in _WHITE):
        names = given.names if given is not None else ("background", "object")
        if len(names) == 1:
            names = ("background", *names)
        if len(names) != 2:
            raise UserError(f"the masks are binary (0 and {held[1]}), and {len(names)} classes were named; name one, or two")
        said.append(f"they are binary masks: 0 is '{names[0]}' and {held[1]} is '{names[1]}'")
        return FoundClasses(names, (0, held[1]), _palette(given, names), (), tuple(said))
    values = held
    void: tuple[int, ...] = ()
    if len(held) > 2 and held[-1] in _VOID_VALUES and (given is None or len(given.names) < len(held)):
        void, values = (held[-1],), held[:-1]
        said.append(f"{void[0]} is taken for pixels of no class")
    if len(values) > _MOST_VALUES:
        raise UserError(
            f"the masks hold {len(values)} numbers, {in_ranges(values)}, and there can be {_MOST_VALUES} classes; do they "
            "number instances? Give masks of classes"
        )
    palette = _palette_of_file(counts, values)
    if given is None:
        names = tuple("background" if value == 0 else f"class {value}" for value in values)
        said.append("the classes are called after their numbers" + (", and 0 is the background" if 0 in values else ""))
        return FoundClasses(names, tuple(values), palette, void, tuple(said))
    names, count = given.names, len(given.names)
    if values[-1] < count:
        numbered = tuple(range(count))
        if missing := [names[value] for value in numbered if value not in values]:
            said.append(f"no mask holds {', '.join(missing)}, which stay in the list")
        said.append("the classes named are those of the numbers from 0 on")
    elif count == len(values):
        numbered = tuple(values)
        said.append("the classes named are those of the numbers in rising order")
    elif values[-1] <= count and values[0] == 0:
        numbered = tuple(range(1, count + 1))
        void = (0, *void)
        said.append("0 is taken for pixels of no class, and the classes named are those of the numbers from 1 on")
    else:
        raise UserError(
            f"{count} classes were named, and the masks hold {len(values)} numbers, {in_ranges(values)}; name a class for "
            "each, in their order"
        )
    return FoundClasses(names, numbered, _palette(given, names) or palette, void, tuple(said))


def _of_colours(counts: MaskCounts, given: ClassSet | None) -> FoundClasses:
    held = [colour for colour, _ in sorted(counts.colours.items(), key=lambda item: (-item[1], item[0]))]
    total = sum(counts.colours.values())
    shown = _shown([f"{colour} ({counts.colours[colour] / total:.1%})" for colour in held])
    said = [f"masks hold {len(held)} colours: {shown} of the pixels"]
    if counts.palettes_differ:
        said.append("their palettes differ, so that the colours count and not their places")
    if given is None:
        given = next((known for known in CLASS_SETS.values() if {*held} - {(0, 0, 0)} <= {*known.palette}), None)
        if given is not None:
            said.append(f"the colours are those of {given.name}, whose classes they are taken for")
    if given is None:
        void: tuple[Colour, ...] = ()
        names = tuple("background" if colour == (0, 0, 0) else "#{:02x}{:02x}{:02x}".format(*colour) for colour in held)
        black = (0, 0, 0) in held
        said.append("the classes are called after their colours" + (", and black is the background" if black else ""))
        return FoundClasses(names, (), tuple(held), void, tuple(said))
    strange = [colour for colour in held if colour not in given.palette]
    if strange == [(0, 0, 0)] and (0, 0, 0) in held:
        said.append("black, which no class has, is taken for pixels of no class")
    elif strange:
        raise UserError(
            f"the masks hold the colour {strange[0]}, which none of the classes named has; give --classes a file with "
            "a name and the colour of its masks a line, such as 'road 128 64 128'"
        )
    return FoundClasses(given.names, (), given.palette, tuple(strange), tuple(said))


def _palette(given: ClassSet | None, names: Sequence[str]) -> tuple[Colour, ...] | None:
    return given.palette if given is not None and len(given.palette) == len(names) else None


def _palette_of_file(counts: MaskCounts, values: Sequence[int]) -> tuple[Colour, ...] | None:
    listed = tuple(counts.palette[value] for value in values if value in counts.palette)
    return listed if len(listed) == len(set(listed)) == len(values) and not counts.palettes_differ else None


def find_class_names(root: Path) -> tuple[ClassSet | None, str]:
    """Return the classes that a file beside the pictures names, and its name; CVAT's and VOC's label maps are known too."""
    for name in _CLASS_FILES:
        if (root / name).is_file():
            return read_classes(str(root / name)), name
    for name in _LABEL_MAPS:
        if (root / name).is_file() and (listed := _label_map(root / name)) is not None:
            return listed, name
    return None, ""


def _label_map(path: Path) -> ClassSet | None:
    """Return the classes of a label map in the form of CVAT's export, ``# label:color_rgb:parts:actions``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = [match for line in lines if (match := re.match(r"([^#:][^:]*):(\d{1,3}),(\d{1,3}),(\d{1,3}):", line.strip()))]
    if len(found) < 2:
        return None
    palette = tuple((int(match[2]), int(match[3]), int(match[4])) for match in found)
    return ClassSet(path.name, tuple(match[1].strip() for match in found), palette, max(255, len(found)))


@dataclass(frozen=True)
class FoundSplits:
    """Splits as folders or lists suggest them; both are empty where the pictures are to be dealt out."""

    sources: dict[str, tuple[str, ...]]
    said: str


def find_splits(root: Path, paths: Sequence[str], pictures: Sequence[str]) -> FoundSplits:
    """Return the splits that folders or lists of a directory name."""
    lists: dict[str, str] = {}
    for path in paths:
        name = path.rpartition("/")[2].lower()
        if name.endswith(".txt") and (split := _split_of(name[: -len(".txt")])) is not None:
            lists.setdefault(split, path)
    if {"train", "val"} <= lists.keys():
        said = "the splits are those of the lists " + ", ".join(lists.values())
        return FoundSplits({name: (lists[name],) for name in _SPLIT_FOLDERS if name in lists}, said)
    folders: dict[str, dict[str, None]] = {}
    for path in pictures:
        parts = path.split("/")[:-1]
        for depth, part in enumerate(parts):
            if (split := _split_of(part)) is not None:
                folders.setdefault(split, {})["/".join(parts[: depth + 1]) + "/"] = None
                break
    if {"train", "val"} <= folders.keys():
        sources = {name: tuple(sorted(folders[name], key=natural)) for name in _SPLIT_FOLDERS if name in folders}
        return FoundSplits(
            sources,
            "the splits are folders: " + ", ".join(f"{name} is {' and '.join(where)}" for name, where in sources.items()),
        )
    return FoundSplits({}, "")


def _split_of(name: str) -> str | None:
    words = [word for word in re.split(r"[-_ .]", name.lower()) if word not in ("images", "image", "img", "imgs")]
    return next((split for split, known in _SPLIT_FOLDERS.items() if words and all(word in known for word in words)), None)


def find_size(root: Path, pictures: Sequence[str]) -> tuple[Size | None, str]:
    """Return the size that pictures are to be brought to, and why; None where none can be read."""
    sizes: Counter[Size] = Counter()
    for picture in pictures:
        try:
            sizes[read_header(root / picture).size] += 1
        except UserError:
            continue  # 'data check' names it
    if not sizes:
        return None, ""
    common = sizes.most_common(1)[0][0]
    shrink = min(1.0, _LARGE.width / max(common))
    size = Size(*(max(MULTIPLE, round(side * shrink / MULTIPLE) * MULTIPLE) for side in common))
    kinds = str(common) if len(sizes) == 1 else f"of {len(sizes)} sizes, mostly {common}"
    said = f"pictures are {kinds}"
    return size, said if size == common and len(sizes) == 1 else f"{said}; they are brought to {size} ('size')"
