"""Annotation files in a directory, whatever tool wrote them, and the masks that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from enet_tvm.data.annotations.coco import is_coco, parse_coco
from enet_tvm.data.annotations.cvat import read_cvat
from enet_tvm.data.annotations.labelme import is_labelme, parse_labelme
from enet_tvm.data.annotations.shapes import VOID, AnnotatedPicture, Annotations, Region, draw_mask
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, read_json
from enet_tvm.runtime.pictures import SUFFIXES

DRAWN = "drawn_masks"
"""Name of the folder that the masks are drawn into."""
_MOST_BYTES = 1 << 30
_BACKGROUND = ("background", "_background_")
_IGNORED = "__ignore__"


def find_annotations(root: Path, paths: Sequence[str], given: Sequence[Path] = ()) -> dict[Path, Annotations]:
    """Return what the annotation files of a directory say, by file; those of labelme, one a picture, are one.

    Parameters
    ----------
    root : Path
        The directory.
    paths : sequence of str
        Relative paths of the files in the directory.
    given : sequence of Path, optional
        The annotation files; by default all JSON and XML files of COCO, labelme and CVAT.

    Raises
    ------
    UserError
        When one cannot be read, or a given one is of no tool that is known.
    """
    found: dict[Path, Annotations] = {}
    alone: list[AnnotatedPicture] = []
    for path in given or [root / name for name in paths if Path(name).suffix.lower() in (".json", ".xml")]:
        if path.suffix.lower() == ".xml":
            annotations = read_cvat(path)
        else:
            content = read_json(path, "export it again from the annotation tool", _MOST_BYTES)
            if is_labelme(content):
                alone.append(_beside(parse_labelme(content, path), path, root))
                continue
            annotations = parse_coco(content, path) if is_coco(content) else None
        if annotations is not None:
            found[path] = annotations
        elif given:
            raise UserError(f"{path} is no annotation file of COCO, labelme or CVAT; export it in one of these forms")
    if alone:
        labels = dict.fromkeys(region.label for picture in alone for region in picture.regions if region.label is not None)
        found[root] = Annotations("labelme", tuple(sorted(labels)), tuple(alone))
    return found


def _beside(picture: AnnotatedPicture, path: Path, root: Path) -> AnnotatedPicture:
    """Return the picture under the path that it has from the root; regions that labelme ignores count nowhere."""
    regions = tuple(
        Region(None, region.forms, region.order) if region.label == _IGNORED else region for region in picture.regions
    )
    place = path.parent.resolve() / picture.name
    base = root.resolve()
    name = place.resolve().relative_to(base).as_posix() if place.resolve().is_relative_to(base) else picture.name
    return AnnotatedPicture(name, picture.size, regions)


@dataclass
class DrawnMasks:
    """Masks that were drawn.

    Attributes
    ----------
    names, values, void
        Class names, the number of each class in the masks, and the numbers that stand for no class.
    pictures, masks : str
        Patterns of the picture files and of the mask files.
    paths : list of str
        Relative paths of the pictures.
    said : list of str
        Sentences on what was assumed.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    void: tuple[int, ...]
    pictures: str = ""
    masks: str = f"{DRAWN}/**/*.png"
    paths: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def draw_masks(
    root: Path, paths: Sequence[str], found: dict[Path, Annotations], *, wanted: Sequence[str] = (), outside: str = "background"
) -> DrawnMasks:
    """Draw annotations as masks of numbers into a folder of the directory, in the place of what was drawn there before.

    Parameters
    ----------
    root : Path
        The directory.
    paths : sequence of str
        Relative paths of the files in the directory.
    found : dict
        Annotations by file, as `find_annotations` returned them.
    wanted : sequence of str, optional
        Class names in the wanted order; must name all that are annotated.
    outside : str
        Meaning of pixels outside of every region: "background", which is a class, or "void".

    Raises
    ------
    UserError
        When classes are missing in `wanted`, there are too many, no picture is found, or nothing can be written.
    """
    kinds = " and ".join(sorted({exported.kind for exported in found.values()}))
    labels = list(dict.fromkeys(label for exported in found.values() for label in exported.labels if label != _IGNORED))
    drawn = _numbered(labels, wanted, outside)
    known = [name for name in paths if Path(name).suffix.lower() in SUFFIXES and not name.startswith(f"{DRAWN}/")]
    placed: dict[str, AnnotatedPicture] = {}
    missing: list[str] = []
    for path, exported in found.items():
        for picture in exported.pictures:
            if (name := _located(picture.name, path, root, known)) is None:
                missing.append(picture.name)
            elif name in placed:
                regions = (*placed[name].regions, *picture.regions)
                placed[name] = AnnotatedPicture(name, picture.size, regions)
            else:
                placed[name] = picture
    if not placed:
        shown = f", such as {missing[0]}" if missing else ""
        raise UserError(f"none of the pictures that the annotations name{shown} is under {root}; put them there")
    prefix = _common_folder(list(placed))
    drawn.pictures = f"{prefix}**/*.*"
    drawn.paths = sorted(placed)
    fill = VOID if drawn.void and outside == "void" else 0
    with atomic_directory(root / DRAWN) as folder:
        for name, picture in placed.items():
            target = (folder / name.removeprefix(prefix)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_mask(picture, drawn.names, fill)).save(target)
    empty = sum(not picture.regions for picture in placed.values())
    drawn.said.append(f"annotations of {kinds}: {len(placed)} masks were drawn into {DRAWN}/, and --force draws them anew")
    drawn.said += [sentence for exported in found.values() for sentence in exported.said]
    outer = "of no class" if outside == "void" else f"'{drawn.names[0]}'"
    drawn.said.append(f"pixels outside of every region are {outer}")
    if empty:
        drawn.said.append(f"{empty} pictures have no region")
    if missing:
        drawn.said.append(f"{len(missing)} annotated pictures are not there and were left out, such as {missing[0]}")
    return drawn


def _numbered(labels: Sequence[str], wanted: Sequence[str], outside: str) -> DrawnMasks:
    names = list(wanted or labels)
    if unnamed := [label for label in labels if label not in names]:
        raise UserError(f"the annotations have the class '{unnamed[0]}', which was not named; name all of {', '.join(labels)}")
    if outside == "background":
        ground = next((name for name in names if name.lower() in _BACKGROUND), "background")
        # `draw_mask` gives pixels of no region the first class.
        names = [ground, *(name for name in names if name != ground)]
    if len(names) >= VOID:
        raise UserError(f"the annotations have {len(names)} classes, and there can be {VOID - 1}; merge some")
    return DrawnMasks(tuple(names), tuple(range(len(names))), (VOID,))


def _located(name: str, annotation: Path, root: Path, known: Sequence[str]) -> str | None:
    """Return the file that annotations call so: from the root, from beside them, or the only one whose path ends so."""
    name = name.replace("\\", "/").removeprefix("./")
    if name in known:
        return name
    ending = [path for path in known if path.endswith(f"/{name}")]
    if len(ending) > 1 and annotation.is_file():
        # instances_train.json means train/0001.jpg, and not val/0001.jpg.
        words = annotation.stem.lower().replace("-", "_").split("_")
        ending = [path for path in ending if any(part in words for part in path.lower().split("/")[:-1])] or ending
    if len(ending) != 1:
        last = name.rpartition("/")[2]
        ending = ending or [path for path in known if path.rpartition("/")[2] == last]
    return ending[0] if len(ending) == 1 else None


def _common_folder(paths: Sequence[str]) -> str:
    folders = [path.split("/")[:-1] for path in paths]
    common: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)
