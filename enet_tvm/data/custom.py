"""A data set of one's own: pictures and masks of any classes, as a `dataset.toml` describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enet_tvm.data.dataset_file import FILE_NAME, LARGEST_VALUE, DatasetFile, SplitEntries, read_dataset_file
from enet_tvm.data.folder import Listing, PairedFiles
from enet_tvm.data.lists import read_lines
from enet_tvm.data.masks import in_ranges, read_mask, stored_colours
from enet_tvm.data.patterns import Pairing, natural, pair_files, walk_files
from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import SUFFIXES

_UNKNOWN = 256
_SHOWN = 6


class CustomData(PairedFiles):
    """One split of a data set that is described by the `dataset.toml` in its directory.

    The class itself stands for no data set; `custom_data` returns the one of a directory.
    """

    layout = FILE_NAME
    file: ClassVar[DatasetFile]
    """Content of `dataset.toml`."""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether there is a `dataset.toml`."""
        return (root / FILE_NAME).is_file()

    @classmethod
    def splits(cls, root: Path) -> tuple[str, ...]:
        """Return the splits that the file names."""
        return cls.file.splits.names

    @classmethod
    def list_files(cls, root: Path, split: str) -> Listing:
        """Return the pairs of a split in the order of their names, or of its lists."""
        raise NotImplementedError  # see `custom_data`

    @classmethod
    def to_classes(cls, stored: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Return the classes of a mask's numbers, or of its colours as H x W x 3."""
        raise NotImplementedError  # see `custom_data`


def custom_data(root: Path) -> type[CustomData]:
    """Return the data set that the `dataset.toml` of a directory describes, of which instances are splits.

    Raises
    ------
    UserError
        When the file does not fit.
    """
    described = read_dataset_file(root / FILE_NAME)
    table = _ColourTable(described) if described.mask_kind == "colours" else _NumberTable(described)

    class Described(CustomData):
        file = described
        class_set = described.class_set()
        paper_size = described.paper_size

        @classmethod
        def list_files(cls, root: Path, split: str) -> Listing:
            return _files_of(root).listing(split)

        @classmethod
        def problems_of_all(cls, root: Path) -> tuple[str, ...]:
            return _files_of(root).problems

        @classmethod
        def warnings_of_all(cls, root: Path) -> tuple[str, ...]:
            return _files_of(root).warnings

        @classmethod
        def read_stored(cls, path: Path) -> NDArray[Any]:
            return stored_colours(path) if described.mask_kind == "colours" else read_mask(path)

        @classmethod
        def to_classes(cls, stored: NDArray[Any], path: Path) -> NDArray[np.uint8]:
            return table.classes(stored, path)

    @cache
    def _files_of(root: Path) -> DescribedFiles:
        return DescribedFiles(root, described)

    Described.__name__ = Described.__qualname__ = CustomData.__name__
    return Described


class DescribedFiles:
    """The files of a described data set, by split, and what is wrong with them as a whole.

    Parameters
    ----------
    where : Path
        Directory of the `dataset.toml`.
    described : DatasetFile
        Content of the `dataset.toml`.

    Attributes
    ----------
    problems : tuple of str
        Sentences on faults of files that concern no single split.
    warnings : tuple of str
        Sentences on files that are left out, perhaps on purpose.

    Raises
    ------
    UserError
        When the root is missing or cannot be read.
    """

    def __init__(self, where: Path, described: DatasetFile) -> None:
        self.where = where
        self.described = described
        self.root = where / Path(described.root).expanduser()
        if not self.root.is_dir():
            raise UserError(f"{where / FILE_NAME}: 'root' = {described.root!r}, and there is no folder {self.root}; correct it")
        self.paths = walk_files(self.root)
        self.pairing = pair_files(self.paths, described.pictures, described.masks)
        self.pictures = sorted([*self.pairing.pairs, *self.pairing.lone_pictures], key=natural)
        members = {name: self._claimed(sources) for name, sources in described.splits.sources.items()}
        claimed = {path for paths, _ in members.values() for path in paths}
        free = [path for path in self.pictures if path not in claimed]
        members |= {name: (paths, []) for name, paths in deal_out(free, described.splits).items()}
        self.members = members
        self.problems = tuple(self._problems(members))
        self.warnings = tuple(self._warnings(members, claimed))

    def listing(self, split: str) -> Listing:
        """Return the pairs of a split, and what is wrong with it."""
        where = self.where / FILE_NAME
        if split not in self.members:
            return Listing((), (f"{where} has no split '{split}'; it has {', '.join(self.described.splits.names)}",))
        pictures, found = self.members[split]
        problems = list(found)
        pairs = []
        for picture in pictures:
            if (mask := self.pairing.pairs.get(picture)) is None:
                problems.append(f"{self.root / picture} has no mask; put one there that fits {self._shown_masks()}, or drop it")
            else:
                pairs.append((self.root / picture, self.root / mask))
        if not pairs and not problems:
            problems.append(f"{where}: the split '{split}' has no pictures; {self._why_empty(split)}")
        return Listing(tuple(pairs), tuple(problems))

    def _why_empty(self, split: str) -> str:
        if not self.pictures:
            return f"no file under {self.root} fits {', '.join(self.described.pictures)}; correct 'pictures'"
        splits = self.described.splits
        if split in splits.shares:
            return f"there are too few blocks of {splits.block} successive pictures to share out; lower 'splits.block'"
        return f"correct 'splits.{split}'"

    def _shown_masks(self) -> str:
        return " or ".join(self.described.masks)

    def _claimed(self, sources: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the pictures of folders and lists, and what is wrong with those."""
        paths: dict[str, None] = {}
        problems = []
        for source in sources:
            place = self.root / source
            if place.is_file():
                named, wrong = self._listed(place)
                paths |= dict.fromkeys(named)
                problems += wrong
                continue
            prefix = source.strip("/").removeprefix("./") + "/"
            inside = [path for path in self.pictures if path.startswith(prefix)]
            if not inside:
                problems.append(
                    f"{self.where / FILE_NAME}: there is no list {place}, nor a folder with pictures; correct 'splits'"
                )
            paths |= dict.fromkeys(inside)
        return list(paths), problems

    def _listed(self, path: Path) -> tuple[list[str], list[str]]:
        found, problems = [], []
        for number, line in enumerate(read_lines(path), start=1):
            if not (line := line.strip()):
                continue
            candidates = self._named(line)
            if len(candidates) == 1:
                found.append(candidates[0])
            elif candidates:
                problems.append(f"{path}, line {number}: '{line}' may be {' or '.join(candidates[:3])}; write its whole path")
            else:
                problems.append(f"{path}, line {number}: '{line}' is no picture of the data set; put it there or drop the line")
        return found, problems

    def _named(self, line: str) -> list[str]:
        """Return the pictures that a line of a list may mean: by path, by name, or by name without suffix."""
        known = self._names
        wordings = [line, *(line[: at.start()].strip() for at in re.finditer(r"\t|[,;]| +", line))]
        for wording in wordings:
            wording = wording.strip("\"'").replace("\\", "/").removeprefix("./")
            for name in (wording, wording.rpartition("/")[2]):
                if candidates := known.get(name, []):
                    return candidates
        return []

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        known: dict[str, list[str]] = {}
        for path in self.pictures:
            stem = path.rpartition(".")[0] or path
            for name in dict.fromkeys((path, path.rpartition("/")[2], stem, stem.rpartition("/")[2])):
                known.setdefault(name, []).append(path)
        return known

    def _problems(self, members: dict[str, tuple[list[str], list[str]]]) -> Iterator[str]:
        pairing: Pairing = self.pairing
        for mask in pairing.lone_masks:
            wanted = " or ".join(self.described.pictures)
            yield f"{self.root / mask} has no picture; put one there that fits {wanted}, or drop it"
        for paths in pairing.doubles:
            yield (
                f"{self.root / paths[0]} and {', '.join(paths[1:])} go by the same name; which is meant? Rename or drop "
                + ("one" if len(paths) == 2 else "all but one")
            )
        names = list(members)
        for place, name in enumerate(names):
            for other in names[place + 1 :]:
                for path in sorted(set(members[name][0]) & set(members[other][0]), key=natural):
                    yield f"{self.root / path} is in both splits '{name}' and '{other}'; drop it from one of them"

    def _warnings(self, members: dict[str, tuple[list[str], list[str]]], claimed: set[str]) -> Iterator[str]:
        used = claimed.union(*(paths for paths, _ in members.values()))
        if unused := [path for path in self.pictures if path not in used]:
            yield f"{len(unused)} pictures are in no split, such as {self.root / unused[0]}; see 'splits' in {FILE_NAME}"
        known = {*self.pictures, *self.pairing.lone_masks, *self.pairing.pairs.values()}
        known.update(path for paths in self.pairing.doubles for path in paths)
        folders = {path.rpartition("/")[0] for path in known}
        for path in self.paths:
            suffix = Path(path).suffix.lower()
            if path in known or path.rpartition("/")[0] not in folders:
                continue
            if suffix in SUFFIXES:
                yield f"{self.root / path} fits no pattern of {FILE_NAME} and is left out"
            elif suffix in _UNREADABLE:
                yield f"{self.root / path} is of a format that is not read, and is left out; convert it to PNG or JPEG"


_UNREADABLE = frozenset({".avif", ".cr2", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".nef", ".npy", ".svg", ".tga"})


def deal_out(pictures: Sequence[str], splits: SplitEntries) -> dict[str, list[str]]:
    """Return the pictures of each split that is a share, by blocks of successive names.

    Parameters
    ----------
    pictures : sequence of str
        Paths of the pictures in order; a block does not reach over the end of a folder.
    splits : SplitEntries
        Shares, length of the blocks and seed. Every split that has a share gets a block, if there are as many.
    """
    shares = splits.shares
    blocks: list[list[str]] = []
    for path in pictures:
        folder = path.rpartition("/")[0]
        if not blocks or len(blocks[-1]) == splits.block or blocks[-1][0].rpartition("/")[0] != folder:
            blocks.append([])
        blocks[-1].append(path)
    order = np.random.default_rng(splits.seed).permutation(len(blocks)).tolist()
    dealt: dict[str, list[int]] = {name: [] for name in shares}
    counts = dict.fromkeys(shares, 0)
    rest = 1 - sum(shares.values())
    left = rest * len(pictures) if rest > 1e-9 else 0.0
    wanted = {name: share * len(pictures) for name, share in shares.items()}
    for number in order:
        if not shares:
            break
        # The split that lacks the most of its share; one that has nothing yet comes first.
        name = max(shares, key=lambda name: (not dealt[name], (wanted[name] - counts[name]) / wanted[name]))
        length = len(blocks[number])
        if left and dealt[name] and wanted[name] - counts[name] < length / 2:
            left -= length
            continue
        dealt[name].append(number)
        counts[name] += length
    return {name: [path for number in sorted(numbers) for path in blocks[number]] for name, numbers in dealt.items()}


class _NumberTable:
    """Classes by the numbers in masks."""

    def __init__(self, described: DatasetFile) -> None:
        self.described = described
        self.table = np.full(LARGEST_VALUE + 1, _UNKNOWN, np.uint16)
        for label, entry in enumerate(described.classes):
            self.table[list(entry.value)] = label
        self.table[[void for void in described.void if isinstance(void, int)]] = described.class_set().ignore_index

    def classes(self, stored: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        inside = np.clip(stored, 0, LARGEST_VALUE).astype(np.uint16)
        labels = self.table[inside]
        if (strange := (labels == _UNKNOWN) | (stored < 0) | (stored > LARGEST_VALUE)).any():
            values, counts = np.unique(stored[strange], return_counts=True)
            known = sorted(value for entry in self.described.classes for value in entry.value)
            raise UserError(
                f"{path} holds {in_ranges(values.tolist())} in {counts.sum():,} pixels, which no class has: {FILE_NAME} knows "
                f"{in_ranges(known)}{self._void()}. Add a class or a void value there, or correct the mask"
            )
        return labels.astype(np.uint8)

    def _void(self) -> str:
        void = sorted(value for value in self.described.void if isinstance(value, int))
        return f", and {in_ranges(void)} for void" if void else ""


class _ColourTable:
    """Classes by the colours in masks."""

    def __init__(self, described: DatasetFile) -> None:
        self.described = described
        void = described.class_set().ignore_index
        entries = [(entry.colour, label) for label, entry in enumerate(described.classes) if entry.colour is not None]
        entries += [(colour, void) for colour in described.void if isinstance(colour, tuple)]
        packed = [(red << 16 | green << 8 | blue, label) for (red, green, blue), label in entries]
        self.colours = np.array(sorted(packed), np.uint32)

    def classes(self, stored: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        wide = stored.astype(np.uint32)
        packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        colours, labels = self.colours[:, 0], self.colours[:, 1]
        place = np.minimum(np.searchsorted(colours, packed), len(colours) - 1)
        if (strange := colours[place] != packed).any():
            values, counts = np.unique(packed[strange], return_counts=True)
            common = values[np.argsort(-counts)][:_SHOWN].tolist()
            shown = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in common)
            more = f" and {len(values) - len(common)} more colours" if len(values) > len(common) else ""
            raise UserError(
                f"{path} holds {shown}{more} in {counts.sum():,} pixels, which no class has; add a class or a void colour to "
                f"{FILE_NAME}, or correct the mask (one that was smoothed must be drawn anew)"
            )
        return labels[place].astype(np.uint8)
