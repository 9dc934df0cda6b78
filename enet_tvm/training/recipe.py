"""A training recipe: everything that decides the weights besides the data, read from TOML.

What a recipe does not say has the value of ``recipes/default.toml``, the only place where defaults stand.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from functools import reduce
from importlib import resources
from importlib.resources.abc import Traversable
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from enet_tvm.errors import UserError
from enet_tvm.files import read_toml
from enet_tvm.size import Size, parse_size
from enet_tvm.toml_text import line_of

Fraction = Annotated[float, Field(ge=0, le=1)]
ClassWeight = Annotated[float, Field(ge=0, le=1e6)]
Factor = Annotated[float, Field(gt=0)]
Stops = Annotated[float, Field(ge=-8, le=8)]


FORMER_NAMES = {"more": "warm-restart", "mixed": "small-objects"}
"""Present name of each built-in recipe by its former name, which runs and notes of weights may hold."""


def _folder() -> Traversable:
    return resources.files("enet_tvm.training") / "recipes"


_DEFAULT = tomllib.loads((_folder() / "default.toml").read_text(encoding="utf-8"))


def _default(*path: str, **limits: Any) -> Any:
    """Return a field that has, where a recipe does not say it, the value of the default recipe."""
    return Field(default=reduce(getitem, path, _DEFAULT), **limits)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class OptimiserRecipe(_Section):
    """Optimiser and the course of its learning rate."""

    name: Literal["adam", "adamw"] = _default("optimiser", "name")
    """adam adds the decay to the gradient (an L2 penalty), adamw takes it off the weights."""
    learning_rate: float = _default("optimiser", "learning_rate", gt=0)
    weight_decay: float = _default("optimiser", "weight_decay", ge=0)
    decay: Literal["kernels", "all"] = _default("optimiser", "decay")
    """Parameters that decay: the kernels of convolutions only, or biases, batch norm and PReLU slopes too."""
    schedule: Literal["constant", "cosine", "poly"] = _default("optimiser", "schedule")
    """Learning rate after the warm-up: constant, half a cosine to zero, or ``(1 - t) ** 0.9``."""
    warmup_epochs: float = _default("optimiser", "warmup_epochs", ge=0)
    clip_norm: float | None = _default("optimiser", "clip_norm", gt=0)
    """Largest norm of the gradients; longer ones are shortened to it. Zero in TOML means no limit."""

    @field_validator("clip_norm", mode="before")
    @classmethod
    def _zero_is_none(cls, value: Any) -> Any:
        return None if value == 0 else value


class LossRecipe(_Section):
    """Terms of the loss and their weights."""

    cross_entropy: float = _default("loss", "cross_entropy", ge=0)
    class_weight_constant: float | None = _default("loss", "class_weight_constant", gt=1)
    """Constant c of the paper's class weights 1 / ln(c + p): larger is more even. Zero in TOML means no class weights."""
    class_weights: tuple[ClassWeight, ...] | dict[str, ClassWeight] | None = None
    """Weights to use instead: one for each class in the order of the data set, or a table by name; classes that it does not
    name weigh 1."""
    label_smoothing: Fraction = _default("loss", "label_smoothing")
    """Share of the cross-entropy's target that is spread over all classes."""
    hardest: float = _default("loss", "hardest", gt=0, le=1)
    """Share of the labelled pixels that the cross-entropy counts: those of each batch where it is largest."""
    encoder: float = _default("loss", "encoder", ge=0)
    """Weight of the cross-entropy of a classifier on the encoder (deep supervision), which the finished network lacks."""
    lovasz: float = _default("loss", "lovasz", ge=0)
    lovasz_stride: int = _default("loss", "lovasz_stride", ge=1)
    """Stride of the pixels that the Lovasz term looks at, along both axes: sorting all of them costs too much."""

    @field_validator("class_weight_constant", mode="before")
    @classmethod
    def _zero_is_none(cls, value: Any) -> Any:
        return None if value == 0 else value


class AugmentationRecipe(_Section):
    """Strengths of the augmentation; see `enet_tvm.data.transforms.Augmentation`."""

    scale: tuple[Factor, Factor] = _default("augmentation", "scale")
    aspect: Fraction = _default("augmentation", "aspect")
    flip: Fraction = _default("augmentation", "flip")
    brightness: Fraction = _default("augmentation", "brightness")
    contrast: Fraction = _default("augmentation", "contrast")
    saturation: Fraction = _default("augmentation", "saturation")
    hue: float = _default("augmentation", "hue", ge=0, le=180)
    blur: Fraction = _default("augmentation", "blur")
    exposure: tuple[Stops, Stops] = _default("augmentation", "exposure")
    white_balance: float = _default("augmentation", "white_balance", ge=0, le=4)
    gamma: float = _default("augmentation", "gamma", ge=0, le=4)
    noise: Fraction = _default("augmentation", "noise")

    @field_validator("scale", "exposure")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first must not be larger than the second")
        return value


class RareRecipe(_Section):
    """More of the classes that are seldom seen; see `enet_tvm.training.rare`."""

    below: Fraction = _default("rare", "below")
    """Share of the labelled pixels below which a class is rare."""
    windows: Fraction = _default("rare", "windows")
    """Share of the windows that are cut around a pixel of a rare class, each rare class as often as the others."""
    paste: Fraction = _default("rare", "paste")
    """Probability that what is of rare classes in such a window of another picture is pasted into a window."""
    class_mix: Fraction = _default("rare", "class_mix")
    """Probability that half of the classes of a window of another picture are pasted into a window."""


class Settings(_Section):
    """What a recipe says for all its stages, and each stage may say for itself."""

    epochs: int = _default("epochs", ge=1)
    batch_size: int = _default("batch_size", ge=2)
    """Number of pictures a step, over all processes together."""
    crop: str = _default("crop")
    """Size of the training windows in pixels, WIDTHxHEIGHT."""
    precision: Literal["float32", "bfloat16"] = _default("precision")
    """Precision of the network; with bfloat16 it runs under autocast, and the loss and the weights stay float32. A CPU without
    bfloat16 instructions computes in float32 all the same, which is faster there."""
    dropout: Fraction = _default("dropout")
    """Factor of the network's own dropout probabilities."""
    average_decay: float = _default("average_decay", ge=0, lt=1)
    """Decay of the moving average of the weights, which is evaluated and kept; zero keeps the weights themselves."""
    batch_norm_batches: int = _default("batch_norm_batches", ge=0)
    """Number of batches of plain training windows from which averaged weights take their batch-norm statistics anew before they
    are evaluated and kept; zero leaves them the average of those that there were."""
    evaluate_every: int = _default("evaluate_every", ge=1)
    """Number of epochs between evaluations; the last epoch is always evaluated."""
    optimiser: OptimiserRecipe = OptimiserRecipe()
    loss: LossRecipe = LossRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()
    rare: RareRecipe = RareRecipe()

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


class Stage(Settings):
    """One of the trainings that a recipe is made of; each goes on from the averaged weights of the one before."""

    name: str = Field(min_length=1, max_length=40)
    part: Literal["encoder", "network"] = "network"
    """Part that is trained: the encoder under a 1x1 classifier, on labels of its own resolution, or the whole network."""


class Recipe(Settings):
    """How a network is trained. Two equal recipes on equal data give equal weights.

    In TOML each ``[[stages]]`` names only what differs from the keys outside of it, and these only what differs from the
    default recipe; a recipe without stages is one training of the whole network.
    """

    seed: int = _default("seed", ge=0)
    drawn_streets: int = _default("drawn_streets", ge=0, le=10_000)
    """Number of drawn streets that join the training pictures; the data set must have CamVid's classes."""
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _stages_start_from_what_is_shared(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("stages"), list | tuple):
            return content
        shared = {key: value for key, value in content.items() if key in Settings.model_fields}
        stages = [_merged(shared, stage) if isinstance(stage, dict) else stage for stage in content["stages"]]
        return content | {"stages": stages}

    @field_validator("stages")
    @classmethod
    def _order_of_stages(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        if stages and stages[-1].part != "network":
            raise ValueError("the last stage must train the whole network")
        return stages

    def in_order(self) -> tuple[Stage, ...]:
        """Return the stages; one of the whole network if none are named."""
        if self.stages:
            return self.stages
        return (Stage(name="network", **{key: getattr(self, key) for key in Settings.model_fields}),)

    @property
    def total_epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.in_order())

    def essence(self) -> dict[str, Any]:
        """Return all keys that decide the weights, dotted, those of a stage under its name, which holds the shared ones."""
        stages = {stage.name: stage.model_dump(mode="json", exclude={"name"}) for stage in self.in_order()}
        return _dotted({"seed": self.seed, "drawn_streets": self.drawn_streets} | stages)

    def to_json(self) -> str:
        """Return the recipe as canonical JSON: equal recipes give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return `own` with what it lacks taken from `shared`, table by table."""
    result = shared | own
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(shared.get(key), dict):
            result[key] = _merged(shared[key], value)
    return result


def _dotted(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tables.items():
        result |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def built_in_recipes() -> list[str]:
    """Return the names of the recipes shipped with the package."""
    return sorted(Path(entry.name).stem for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, changes: Sequence[str] = (), **overrides: Any) -> Recipe:
    """Return a recipe, built in or from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a built-in recipe, a former name of one, or a path that ends in ``.toml``.
    changes : sequence of str
        Keys to replace, in every stage too, as ``KEY=VALUE`` with dots between table and key: ``rare.paste=0.5``. Values are
        those of TOML; what is none is text.
    **overrides
        Top-level keys to replace, in every stage too; None leaves a key alone.

    Raises
    ------
    UserError
        When there is no such recipe, or a key is unknown or its value does not fit; it names the line.
    """
    content, text = _read(str(name_or_path))
    replaced = {key: value for key, value in overrides.items() if value is not None}
    for change in changes:
        replaced = _merged(replaced, _parse_change(change))
    content = _merged(content, replaced)
    if isinstance(content.get("stages"), list):
        content["stages"] = [_merged(stage, replaced) if isinstance(stage, dict) else stage for stage in content["stages"]]
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(str(name_or_path), text, replaced, error)) from error


def _explain(name: str, text: str, replaced: dict[str, Any], error: ValidationError) -> str:
    first = error.errors()[0]
    path = first["loc"]
    key = ".".join(str(part + 1) if isinstance(part, int) else part for part in path)
    line = line_of(text, path) if path and not _holds(replaced, path) else None
    where = f"recipe {name}, line {line}" if line else f"recipe {name}"
    match first["type"]:
        case "extra_forbidden":
            what = "is not a key of a recipe"
        case "missing":
            what = "is missing"
        case "value_error" if path == ("stages",):
            what = f"do not fit together: {first['ctx']['error']}"
        case _:
            what = f"= {first['input']!r}: {first['msg']}"
    return f"{where}: '{key}' {what}; correct it"


def _parse_change(change: str) -> dict[str, Any]:
    """Return what ``KEY=VALUE`` says, as a table of tables."""
    key, equals, value = change.partition("=")
    for text in (value, json.dumps(value)) if equals and "\n" not in change else ():
        try:
            return tomllib.loads(f"{key} = {text}")
        except tomllib.TOMLDecodeError:
            continue
    raise UserError(f"'{change}' changes no key of a recipe; give KEY=VALUE, such as optimiser.learning_rate=1e-3")


def _holds(tables: dict[str, Any], path: tuple[int | str, ...]) -> bool:
    """Return whether a table of tables, whatever stage it is applied to, says the key at the end of a path."""
    keys = path[2:] if path[0] == "stages" else path
    value: Any = tables
    for key in keys:
        if not isinstance(value, dict):
            return True  # an item of a list that stands there
        if key not in value:
            return False
        value = value[key]
    return bool(keys)


def _read(name: str) -> tuple[dict[str, Any], str]:
    known = ", ".join(built_in_recipes())
    if name.endswith(".toml"):
        return read_toml(Path(name).expanduser(), f"correct it, or give another recipe: {known}, or a .toml file")
    name = FORMER_NAMES.get(name, name)
    if name not in built_in_recipes():
        raise UserError(f"there is no recipe {name}; give one of {known}, or a .toml file")
    with resources.as_file(_folder() / f"{name}.toml") as path:
        return read_toml(path, "install enet-tvm again")
