"""A training recipe: everything that decides the weights besides the data, read from TOML."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from enet_tvm.errors import UserError
from enet_tvm.size import Size, parse_size

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimiserRecipe(_Section):
    """Optimiser and the course of its learning rate."""

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    """Not applied to biases, batch norm and PReLU slopes."""
    schedule: Literal["constant", "cosine", "poly"] = "cosine"
    """After the warm-up: unchanged, half a cosine to zero, or ``(1 - t) ** 0.9``."""
    warmup_epochs: float = Field(default=2.0, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)
    """Gradients longer than this are shortened to it."""


class LossRecipe(_Section):
    """Terms of the loss and their weights."""

    cross_entropy: float = Field(default=1.0, ge=0)
    class_weight_constant: float | None = Field(default=1.02, gt=1)
    """The c of the paper's class weights 1 / ln(c + p): larger is more even. Zero in TOML means no class weights."""
    lovasz: float = Field(default=0.0, ge=0)
    lovasz_stride: int = Field(default=3, ge=1)
    """The Lovasz term looks at one pixel in so many, along both axes: sorting all of them costs too much."""

    @field_validator("class_weight_constant", mode="before")
    @classmethod
    def _zero_is_none(cls, value: Any) -> Any:
        return None if value == 0 else value


class AugmentationRecipe(_Section):
    """Strengths of the augmentation; see `enet_tvm.data.transforms.Augmentation`."""

    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.6, 1.6)
    aspect: Fraction = 0.1
    flip: Fraction = 0.5
    brightness: Fraction = 0.3
    contrast: Fraction = 0.3
    saturation: Fraction = 0.3
    hue: float = Field(default=10.0, ge=0, le=180)
    blur: Fraction = 0.1

    @field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first must not be larger than the second")
        return value


class Recipe(_Section):
    """How a network is trained. Two equal recipes on equal data give equal weights."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=8, ge=2)
    crop: str = "384x288"
    """WIDTHxHEIGHT of the training windows."""
    seed: int = Field(default=0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: the network runs under autocast; the loss and the weights stay float32."""
    dropout: Fraction = 1.0
    """Multiplies the network's own dropout probabilities."""
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    """Of the moving average of the weights, which is what is evaluated and kept."""
    evaluate_every: int = Field(default=5, ge=1)
    """Epochs between evaluations; the last epoch is always evaluated."""
    optimiser: OptimiserRecipe = OptimiserRecipe()
    loss: LossRecipe = LossRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()

    @field_validator("crop")
    @classmethod
    def _crop_is_a_size(cls, value: str) -> str:
        try:
            return str(parse_size(value))
        except UserError as error:
            raise ValueError(str(error)) from error

    @property
    def crop_size(self) -> Size:
        """Width and height of the training windows."""
        return parse_size(self.crop)

    def to_json(self) -> str:
        """Return the recipe as canonical JSON: equal recipes give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def built_in_recipes() -> list[str]:
    """Return the names of the recipes shipped with the package."""
    return sorted(Path(entry.name).stem for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, **overrides: Any) -> Recipe:
    """Return a recipe, built in or from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a built-in recipe, or a path that ends in ``.toml``.
    **overrides
        Top-level keys to replace; None leaves a key alone.

    Raises
    ------
    UserError
        When there is no such recipe, or a key is unknown or its value does not fit.
    """
    text = _read(str(name_or_path))
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name_or_path} is not valid TOML: {error}; correct that line") from error
    content |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "is not a key of a recipe" if first["type"] == "extra_forbidden" else f"= {first['input']!r}: {first['msg']}"
        raise UserError(f"recipe {name_or_path}: '{key}' {what}; correct it") from error


def _folder() -> Any:
    return resources.files("enet_tvm.training") / "recipes"


def _read(name: str) -> str:
    try:
        if name.endswith(".toml"):
            return Path(name).expanduser().read_text(encoding="utf-8")
        return str((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(built_in_recipes())
        raise UserError(f"cannot read recipe {name}; give one of {known}, or a .toml file") from error
