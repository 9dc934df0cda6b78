"""Class sets: what the labels of a data set mean and the colours they are drawn in. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enet_tvm.errors import UserError

INSTANCE_STEP = 1000
"""Step of a class in maps of instances: instance `n` of class `c` is ``c * INSTANCE_STEP + n``; -1 belongs to no instance."""


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, in the order of their labels.

    Attributes
    ----------
    name : str
        Name of the set.
    names : tuple of str
        Class names; a class's label is its place.
    palette : tuple of (int, int, int)
        RGB colour of each class, 0..255.
    ignore_index : int
        Label of pixels that belong to no class; they count neither in the loss nor in the metrics.
    categories : tuple of str
        The category of each class; empty if the set has none.
    instance_shares : tuple of float
        The share of a picture that an average instance of each class covers, 0 for classes without instances; empty if
        the set has no instances. The instance-weighted IoU rests on it.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    categories: tuple[str, ...] = ()
    instance_shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.palette)} colours")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(f"{self.name}: the ignored label {self.ignore_index} is that of a class")
        for what, values in (("categories", self.categories), ("instance shares", self.instance_shares)):
            if values and len(values) != len(self.names):
                raise ValueError(f"{self.name}: {len(self.names)} names but {len(values)} {what}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories, each once, in the order of their first class."""
        return tuple(dict.fromkeys(self.categories))

    @property
    def instance_classes(self) -> tuple[str, ...]:
        """Names of the classes of which single instances are labelled."""
        return tuple(name for name, share in zip(self.names, self.instance_shares, strict=False) if share > 0)


def require_classes(names: Sequence[str], class_set: ClassSet, source: str) -> None:
    """Refuse a data set that has other classes than a network.

    Parameters
    ----------
    names : sequence of str
        The network's classes. Where they were only counted (``class 0``, ``class 1``, ...) any names go with them.
    class_set : ClassSet
        Classes of the data set.
    source : str
        Name of the network's origin, for the sentence.

    Raises
    ------
    UserError
        When there are more or fewer, or one has another name.
    """
    if len(names) != len(class_set):
        raise UserError(
            f"{source} knows {len(names)} classes and the data set {class_set.name} has {len(class_set)}; "
            "give weights that were trained on it"
        )
    if all(name == f"class {number}" for number, name in enumerate(names)):
        return
    for number, (own, other) in enumerate(zip(names, class_set.names, strict=True)):
        if own != other:
            raise UserError(
                f"{source} has '{own}' as class {number} and the data set {class_set.name} has '{other}'; give weights that "
                "were trained on it, or name its classes the same in the same order"
            )


CAMVID = ClassSet(
    name="camvid",
    names=("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_index=11,
)
"""The 11 classes of CamVid (Brostow, Fauqueur, Cipolla, 2009) as SegNet grouped them; 11 is unlabelled."""

_CITYSCAPES_PICTURE = 2048 * 1024
_CITYSCAPES = (
    ("road", "flat", (128, 64, 128), 0.0),
    ("sidewalk", "flat", (244, 35, 232), 0.0),
    ("building", "construction", (70, 70, 70), 0.0),
    ("wall", "construction", (102, 102, 156), 0.0),
    ("fence", "construction", (190, 153, 153), 0.0),
    ("pole", "object", (153, 153, 153), 0.0),
    ("traffic light", "object", (250, 170, 30), 0.0),
    ("traffic sign", "object", (220, 220, 0), 0.0),
    ("vegetation", "nature", (107, 142, 35), 0.0),
    ("terrain", "nature", (152, 251, 152), 0.0),
    ("sky", "sky", (70, 130, 180), 0.0),
    ("person", "human", (220, 20, 60), 3462.4756337644),
    ("rider", "human", (255, 0, 0), 3930.4788056518),
    ("car", "vehicle", (0, 0, 142), 12794.0202738185),
    ("truck", "vehicle", (0, 0, 70), 27855.1264367816),
    ("bus", "vehicle", (0, 60, 100), 35732.1511111111),
    ("train", "vehicle", (0, 80, 100), 67583.7075812274),
    ("motorcycle", "vehicle", (0, 0, 230), 6298.7200839748),
    ("bicycle", "vehicle", (119, 11, 32), 4672.3249222261),
)
"""Name, category, colour, and mean size of an instance in pixels: the fixed figures of the public Cityscapes evaluation
(mcordts/cityscapesScripts, `evalPixelLevelSemanticLabeling.py`), which took them from the training set."""

CITYSCAPES = ClassSet(
    name="cityscapes",
    names=tuple(name for name, _, _, _ in _CITYSCAPES),
    palette=tuple(colour for _, _, colour, _ in _CITYSCAPES),
    ignore_index=255,
    categories=tuple(category for _, category, _, _ in _CITYSCAPES),
    instance_shares=tuple(pixels / _CITYSCAPES_PICTURE for _, _, _, pixels in _CITYSCAPES),
)
"""The 19 classes on which Cityscapes (Cordts et al., 2016) is judged, in the order of its training ids."""


def spread_colour(number: int) -> tuple[int, int, int]:
    """Return colour `number` of a series without repeats up to 255: its bits, dealt to red, green and blue in turn.

    The lowest bits weigh most, so that neighbours differ most; zero is black. It is the palette of PASCAL VOC.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


_SUNRGBD_NAMES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter"),
    *("blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books"),
    *("fridge", "tv", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink"),
    *("lamp", "bathtub", "bag"),
)

SUNRGBD = ClassSet(
    name="sunrgbd",
    names=_SUNRGBD_NAMES,
    palette=tuple(spread_colour(number) for number in range(1, len(_SUNRGBD_NAMES) + 1)),
    ignore_index=255,
)
"""The 37 classes of SUN RGB-D (Song, Lichtenberg, Xiao, 2015) in its own order; its label files number them from 1."""

CLASS_SETS = {class_set.name: class_set for class_set in (CAMVID, CITYSCAPES, SUNRGBD)}
"""Every class set by its name."""
