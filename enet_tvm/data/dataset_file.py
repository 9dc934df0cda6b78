"""`dataset.toml`: what a data set of one's own says of its files, classes and splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from enet_tvm.data.classes import ClassSet, spread_colour
from enet_tvm.data.patterns import check_pattern
from enet_tvm.errors import UserError
from enet_tvm.files import read_toml
from enet_tvm.size import Size, parse_size
from enet_tvm.toml_text import line_of

FILE_NAME = "dataset.toml"
SPLIT_NAMES = ("train", "val", "test")
MOST_CLASSES = 255
"""Largest number of classes: labels are bytes, and one of them is void's."""
LARGEST_VALUE = 65535

Channel = Annotated[int, Field(ge=0, le=255, strict=True)]
Colour = tuple[Channel, Channel, Channel]
Value = Annotated[int, Field(ge=0, le=LARGEST_VALUE, strict=True)]
Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(lambda value: str(value) if isinstance(value, bool) else value)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

# In what follows, a field's description is what an error says was expected of it.


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClassEntry(_Section):
    """A class: what it is called, the numbers that masks hold for it, and its colour.

    In masks of colours `colour` is the colour that they hold; otherwise results are drawn in it.
    """

    name: Name = Field(description="a name")
    value: tuple[Value, ...] = Field(
        default=(), description=f"the number that masks hold for the class, from 0 to {LARGEST_VALUE}, or a list of them"
    )
    colour: Colour | None = Field(default=None, description="red, green and blue, each from 0 to 255, such as [128, 64, 128]")

    _list = field_validator("value", mode="before")(_as_list)


class SplitEntries(_Section):
    """Assignment of pictures to splits.

    A share is of the pictures that no folder and no list claims. They are dealt out by blocks of successive names, so that
    neighbouring frames of a video seldom fall into different splits.
    """

    train: Share | tuple[Name, ...] = Field(
        description="a share of the pictures such as 0.8, or a folder or a list of pictures in a text file (or several of them)"
    )
    val: Share | tuple[Name, ...] = Field(description="a share such as 0.2, a folder or a list, as for train")
    test: Share | tuple[Name, ...] | None = Field(default=None, description="a share, a folder or a list, as for train")
    block: int = Field(default=10, ge=1, strict=True, description="a whole number of successive names that stay together")
    seed: int = Field(default=0, ge=0, strict=True, description="a whole number; another one draws other splits")

    @field_validator("train", "val", "test", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _shares_fit(self) -> SplitEntries:
        if (total := sum(share for share in self.shares.values())) > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:g}; they must not exceed 1")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The splits that are shares of the pictures."""
        return {name: value for name in SPLIT_NAMES if isinstance(value := getattr(self, name), float)}

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The splits that are folders or lists."""
        return {name: value for name in SPLIT_NAMES if isinstance(value := getattr(self, name), tuple)}

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that there are."""
        return tuple(name for name in SPLIT_NAMES if getattr(self, name) is not None)


class DatasetFile(_Section):
    """A data set of one's own; see docs/datasets.md.

    A picture and a mask belong together when the wildcards of their patterns stand for the same text; where the patterns have
    different numbers of them, only the last of each counts, which is mostly the name without its suffix.
    """

    name: Name = Field(description="a name for the data set and its classes")
    root: str = Field(default=".", description="the folder that all paths start from, beside this file")
    pictures: tuple[Name, ...] = Field(min_length=1, description='a pattern such as "images/**/*.*", or a list of them')
    masks: tuple[Name, ...] = Field(min_length=1, description='a pattern such as "masks/**/*.png", or a list of them')
    mask_kind: Literal["numbers", "colours"] = Field(
        default="numbers", description='"numbers" (grey values, or places in a palette) or "colours"'
    )
    void: tuple[Value, ...] | tuple[Colour, ...] = Field(
        default=(), description="the number in masks that stands for no class, or a list of them; of masks of colours, colours"
    )
    size: str | None = Field(default=None, description='WIDTHxHEIGHT, both divisible by 8, such as "640x360"')
    classes: tuple[ClassEntry, ...] = Field(description="[[classes]] with a name, and a value or a colour each")
    splits: SplitEntries = Field(description="a table with train, val and perhaps test")

    _lists = field_validator("pictures", "masks", mode="before")(_as_list)

    @field_validator("void", mode="before")
    @classmethod
    def _one_void(cls, value: Any) -> Any:
        one_colour = isinstance(value, list) and len(value) == 3 and all(type(part) is int for part in value)
        return value if isinstance(value, list | tuple) and not one_colour else [value]

    @field_validator("pictures", "masks")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            check_pattern(pattern)
        return patterns

    @field_validator("size")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        try:
            return value if value is None else str(parse_size(value))
        except UserError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _classes_can_be_told_apart(self) -> DatasetFile:
        if not 2 <= len(self.classes) <= MOST_CLASSES:
            raise ValueError(
                f"there are {len(self.classes)} classes, and 2 to {MOST_CLASSES} are wanted; what is not of a class is one "
                "itself, background"
            )
        _refuse_doubles("the name", [entry.name for entry in self.classes])
        if self.mask_kind == "colours":
            if missing := next((entry.name for entry in self.classes if entry.colour is None), None):
                raise ValueError(f"the class '{missing}' has no colour, and masks of colours need one")
            if valued := next((entry.name for entry in self.classes if entry.value), None):
                raise ValueError(f"the class '{valued}' has a value, and masks of colours have none")
            if numbers := [void for void in self.void if isinstance(void, int)]:
                raise ValueError(f"void is {numbers[0]}, and in masks of colours it is a colour, such as [0, 0, 0]")
            _refuse_doubles("the colour", [*(entry.colour for entry in self.classes), *self.void])
            return self
        if missing := next((entry.name for entry in self.classes if not entry.value), None):
            raise ValueError(f"the class '{missing}' has no value; give the number that masks hold for it")
        if colours := [void for void in self.void if not isinstance(void, int)]:
            raise ValueError(f'void is {list(colours[0])}, and masks of numbers hold a number; or set mask_kind = "colours"')
        _refuse_doubles("the value", [*(value for entry in self.classes for value in entry.value), *self.void])
        return self

    @property
    def paper_size(self) -> Size | None:
        """Size to which pictures are brought, None if they stay as they are."""
        return None if self.size is None else parse_size(self.size)

    def class_set(self) -> ClassSet:
        """Return the classes in the order of the file; colours that it does not give are made."""
        taken = {entry.colour for entry in self.classes}
        free: Iterator[Colour] = (
            colour for number in range(1, MOST_CLASSES + 1) if (colour := spread_colour(number)) not in taken
        )
        palette = tuple(entry.colour or next(free) for entry in self.classes)
        return ClassSet(self.name, tuple(entry.name for entry in self.classes), palette, MOST_CLASSES)


def _refuse_doubles(what: str, values: Sequence[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            shown = list(value) if isinstance(value, tuple) else repr(value)
            raise ValueError(f"{what} {shown} is given twice")
        seen.add(value)


def read_dataset_file(path: Path) -> DatasetFile:
    """Return what a `dataset.toml` says.

    Raises
    ------
    UserError
        When it cannot be read, or a key is missing, unknown or does not fit: it names the file, the line, the key and what was
        expected.
    """
    content, text = read_toml(path, "correct it, or make it again with 'enet-tvm data new'")
    try:
        return DatasetFile.model_validate(content)
    except ValidationError as error:
        raise UserError(_complaint(path, text, error)) from error


_TABLES: dict[str, type[BaseModel]] = {"classes": ClassEntry, "splits": SplitEntries}


def _complaint(path: Path, text: str, error: ValidationError) -> str:
    first = error.errors()[0]
    location = first["loc"]
    model: type[BaseModel] = DatasetFile
    keys: list[str | int] = []
    field = None
    for step in location:
        if isinstance(step, str) and step in model.model_fields:
            keys.append(step)
            field = model.model_fields[step]
            model = _TABLES.get(step, model)
        elif isinstance(step, int) and keys[-1:] == ["classes"]:
            keys.append(step)
        elif first["type"] == "extra_forbidden":
            keys.append(step)
            field = None
    line = line_of(text, keys) if keys else None
    where = f"{path}, line {line}" if line else str(path)
    key = ".".join(str(step + 1) if isinstance(step, int) else step for step in keys)
    if first["type"] == "extra_forbidden":
        return f"{where}: '{key}' is not a key; known here are {', '.join(model.model_fields)}"
    if first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        return f"{where}: {f'{chr(39)}{key}{chr(39)}: ' if key else ''}{said}; correct it"
    what = "is missing; it must be" if first["type"] == "missing" else f"= {_short(first['input'])} must be"
    return f"{where}: '{key}' {what} {field.description if field else 'something else'}; correct it"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
