"""CamVid in the layout of the SegNet tutorial: pictures, label maps and a list of pairs per split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from enet_tvm.data.classes import CAMVID, ClassSet
from enet_tvm.errors import UserError


class CamVid:
    """One split of CamVid (Brostow, Fauqueur, Cipolla, 2009) in SegNet's 11-class layout.

    Item `i` is the pair (RGB picture, H x W uint8 labels). Under `root` lie ``SPLIT.txt``, whose lines hold the paths
    of a picture and of its labels, and the folders ``SPLIT/`` and ``SPLITannot/``; of the listed paths only the file
    names count, because the published lists carry their author's own prefix.

    Parameters
    ----------
    root : str or Path
        Directory of the data set.
    split : str
        "train", "val" or "test".

    Raises
    ------
    UserError
        When the directory, the list or a listed file is missing, or a list line is not a pair. Items raise it when a
        file cannot be read, its labels lie outside 0..11, or a picture and its labels differ in size.
    """

    class_set: ClassSet = CAMVID

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        if not self.root.is_dir():
            raise UserError(f"there is no data set directory {self.root}; give the one that holds {split}.txt and {split}/")
        self.pairs = self._read_list()

    def _read_list(self) -> list[tuple[Path, Path]]:
        listing = self.root / f"{self.split}.txt"
        try:
            lines = listing.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            have = ", ".join(sorted(path.stem for path in self.root.glob("*.txt"))) or "none"
            raise UserError(f"cannot read {listing}; give CamVid in SegNet's layout (splits found: {have})") from error
        pairs = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 2:
                raise UserError(
                    f"{listing}, line {number}: '{line.strip()}' is not two paths; put a picture and its labels on it"
                )
            picture = self.root / self.split / PurePosixPath(fields[0]).name
            labels = self.root / f"{self.split}annot" / PurePosixPath(fields[1]).name
            for path in (picture, labels):
                if not path.is_file():
                    raise UserError(f"{listing}, line {number}: {path} is missing; restore the file or drop the line")
            pairs.append((picture, labels))
        if not pairs:
            raise UserError(f"{listing} lists no pictures; restore the list of the data set")
        return pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        picture_path, labels_path = self.pairs[index]
        picture = _open(picture_path).convert("RGB")
        labels = np.asarray(_open(labels_path))
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise UserError(f"{labels_path} is not a map of one 8-bit label a pixel; give SegNet's, not coloured ones")
        if labels.shape != (picture.height, picture.width):
            raise UserError(
                f"{picture_path} is {picture.width}x{picture.height} but its labels are {labels.shape[1]}x{labels.shape[0]}; "
                "resize neither by hand: restore both from the data set"
            )
        if (largest := int(labels.max())) > self.class_set.ignore_index:
            raise UserError(f"{labels_path} holds label {largest}; labels must lie in 0..{self.class_set.ignore_index}")
        return picture, labels


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not a readable picture ({error}); restore it from the data set") from error
