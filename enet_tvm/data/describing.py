"""A `dataset.toml` for a directory: what is found there, written down, and said in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from enet_tvm.data.annotations.finding import DRAWN, draw_masks, find_annotations
from enet_tvm.data.class_list import read_classes, spread_palette
from enet_tvm.data.classes import CLASS_SETS, ClassSet
from enet_tvm.data.dataset_file import FILE_NAME, read_dataset_file
from enet_tvm.data.discovery import (
    FoundClasses,
    Track,
    count_masks,
    find_class_names,
    find_classes,
    find_patterns,
    find_size,
    find_splits,
)
from enet_tvm.data.patterns import pair_files, walk_files
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.runtime.pictures import SUFFIXES
from enet_tvm.size import Size
from enet_tvm.toml_text import format_toml

_LONGEST_BLOCK = 10
_FEWEST_BLOCKS = 10
_HEADING = """\
# Which pictures and masks belong together, what the masks hold, and what is trained on. Written by 'enet-tvm data new';
# correct it as you like, and try it with 'enet-tvm data check'. Paths start from this file's folder. In patterns * stands for
# any name and **/ for any folders; a picture and a mask belong together where these stand for the same.
"""


@dataclass(frozen=True)
class Wishes:
    """Properties of a directory's data set that a user gives; the rest is found out.

    Attributes
    ----------
    classes : str or None
        Classes as `enet_tvm.data.class_list.read_classes` takes them, or names with commas between them.
    pictures, masks : tuple of str
        Patterns of the picture files and of the mask files.
    annotations : tuple of Path
        Annotation files to draw masks from.
    outside : str
        Meaning of pixels outside of every annotated region: "background" or "void".
    name : str or None
        Name of the data set; by default the directory's.
    size : Size or None
        Size to which pictures are brought; None to find one.
    val : float
        Share of the pictures in the val split, where neither folders nor lists give the splits.
    seed : int
        Seed of the draw of the val split.
    """

    classes: str | None = None
    pictures: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    annotations: tuple[Path, ...] = ()
    outside: Literal["background", "void"] = "background"
    name: str | None = None
    size: Size | None = None
    val: float = 0.2
    seed: int = 0


def describe_directory(
    where: str | Path, wishes: Wishes | None = None, *, force: bool = False, track: Track | None = None
) -> list[str]:
    """Write the `dataset.toml` of a directory and return what was found and assumed, a sentence each.

    Parameters
    ----------
    where : str or Path
        Directory with pictures, and masks or annotations.
    wishes : Wishes, optional
        Properties of the data set that the user gives.
    force : bool
        Replace a `dataset.toml` that is there.
    track : callable, optional
        Wraps the files that are read to show progress.

    Raises
    ------
    UserError
        When there is no such directory, no pictures or no masks that belong to them, the masks hold what no classes are, or a
        `dataset.toml` is there already.
    """
    wishes = wishes or Wishes()
    root = Path(where).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no directory {root}; give the one that holds the pictures and masks")
    target = root / FILE_NAME
    if target.exists() and not force:
        raise UserError(f"{target} exists; correct it, or write a new one in its place with --force")
    paths = walk_files(root)
    if not any(Path(path).suffix.lower() in SUFFIXES for path in paths):
        raise UserError(f"there are no pictures under {root}; known suffixes are {', '.join(sorted(SUFFIXES))}")
    said: list[str] = []
    given, listed = _class_names(wishes.classes, root)
    if listed:
        said.append(f"the classes are named in {listed}")
    own = [path for path in paths if not path.startswith(f"{DRAWN}/")]
    patterns = None if wishes.annotations else find_patterns(own, wishes.pictures, wishes.masks)
    if patterns is None:
        found = find_annotations(root, own, wishes.annotations)
        if not found:
            raise UserError(_nothing_found(root, own, wishes))
        drawn = draw_masks(root, own, found, wanted=given.names if given else (), outside=wishes.outside)
        said += drawn.said
        pictures: tuple[str, ...] = (drawn.pictures,)
        masks: tuple[str, ...] = (drawn.masks,)
        classes = FoundClasses(drawn.names, drawn.values, _colours(drawn.names, given), drawn.void, ())
        pairing = pair_files(walk_files(root), pictures, masks)
        kind = "numbers"
    else:
        pictures, masks, pairing = patterns.pictures, patterns.masks, patterns.pairing
        counts = count_masks(root, list(dict.fromkeys(pairing.pairs.values())), track)
        classes = find_classes(counts, given)
        kind = "colours" if counts.coloured else "numbers"
        said += classes.said
        said += [f"not read: {problem}" for problem in counts.problems]
    said.insert(0, f"{len(pairing.pairs)} pairs of {' and '.join(pictures)} with {' and '.join(masks)}")
    lone = [(pairing.lone_pictures, "pictures have no mask"), (pairing.lone_masks, "masks have no picture")]
    said += [f"{len(files)} {what}, such as {files[0]}" for files, what in lone if files]
    said += [f"the same name goes for {' and '.join(files)}" for files in pairing.doubles]
    size, sized = find_size(root, list(pairing.pairs))
    if wishes.size is not None:
        size, sized = wishes.size, f"pictures are brought to {wishes.size}"
    said += [sized] if sized else []
    splits, dealt = _splits(root, own, list(pairing.pairs), wishes)
    said.append(dealt)
    content: dict[str, Any] = {
        "name": wishes.name or root.resolve().name or "own",
        "pictures": list(pictures),
        "masks": list(masks),
    }
    content |= {"mask_kind": kind, "void": [list(void) if isinstance(void, tuple) else void for void in classes.void]}
    content |= {"size": str(size)} if size else {}
    content |= {"classes": _entries(classes), "splits": splits}
    with atomic_file(target) as temporary:
        temporary.write_text(_HEADING + format_toml(content), encoding="utf-8")
        read_dataset_file(temporary)
    return said


def _class_names(wish: str | None, root: Path) -> tuple[ClassSet | None, str]:
    if wish is None:
        return find_class_names(root)
    known = wish.isdecimal() or wish in CLASS_SETS or Path(wish).expanduser().is_file()
    if not known and ("," in wish or not re.search(r"[/\\.]", wish)):
        names = tuple(name.strip() for name in wish.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise UserError(
                f"--classes is '{wish}'; give different names with commas between them, or a file with a name a line"
            )
        return _named(names), ""
    return read_classes(wish), ""


def _named(names: tuple[str, ...]) -> ClassSet:
    return ClassSet("given", names, spread_palette(len(names)), max(255, len(names)))


def _colours(names: Sequence[str], given: ClassSet | None) -> tuple[tuple[int, int, int], ...] | None:
    if given is None or set(names) - set(given.names):
        return None
    return tuple(given.palette[given.names.index(name)] for name in names)


def _nothing_found(root: Path, paths: Sequence[str], wishes: Wishes) -> str:
    if wishes.pictures or wishes.masks:
        return (
            f"no file under {root} that fits {' or '.join(wishes.pictures) or 'any picture'} goes with one that fits "
            f"{' or '.join(wishes.masks) or 'any mask'}; wildcards must stand for the same text in both"
        )
    first = next(path for path in paths if Path(path).suffix.lower() in SUFFIXES)
    return (
        f"no masks go with the pictures under {root}, such as {first}: no folder beside theirs, no ending such as _mask, no "
        "annotations of COCO, labelme or CVAT; say where both lie with --pictures and --masks"
    )


def _splits(root: Path, paths: Sequence[str], pictures: Sequence[str], wishes: Wishes) -> tuple[dict[str, Any], str]:
    found = find_splits(root, paths, pictures)
    if found.sources:
        return {name: list(where) if len(where) > 1 else where[0] for name, where in found.sources.items()}, found.said
    block = max(1, min(_LONGEST_BLOCK, len(pictures) // _FEWEST_BLOCKS))
    said = (
        f"{wishes.val:.0%} of the pictures judge ('val'), drawn by blocks of {block} successive name{'s' * (block > 1)}; of a "
        "video, raise splits.block, so that neighbouring frames stay together"
    )
    return {"train": round(1 - wishes.val, 6), "val": wishes.val, "block": block, "seed": wishes.seed}, said


def _entries(classes: FoundClasses) -> list[dict[str, Any]]:
    palette = classes.palette or spread_palette(len(classes.names))
    values = classes.values or [None] * len(classes.names)
    return [
        {"name": name} | ({} if value is None else {"value": value}) | {"colour": list(colour)}
        for name, value, colour in zip(classes.names, values, palette, strict=True)
    ]
