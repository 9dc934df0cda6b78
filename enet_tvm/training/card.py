"""Model cards: what a weights file says of itself, as Markdown, kept up to date in a text that people write around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from enet_tvm.data.rides import judged_options
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.networks import load_network, read_info
from enet_tvm.networks.weights import WeightsInfo
from enet_tvm.places import find_file, name_of
from enet_tvm.training.recipe import Recipe, built_in_recipes, load_recipe

BEGIN = "<!-- from here on written by: enet-tvm info --card -->"
END = "<!-- up to here -->"
_WRITTEN = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


def write_card(card: Path, weights: Path) -> None:
    """Write a model card of a weights file, atomically.

    In a card that exists, the part between `BEGIN` and `END` is replaced and all else kept.

    Parameters
    ----------
    card : Path
        Markdown file.
    weights : Path
        Weights file; a relative path is also looked for beside the installed package.

    Raises
    ------
    UserError
        When the weights cannot be read, or the card exists but has not exactly one part to replace.
    """
    part = f"{BEGIN}\n{describe(weights)}\n{END}"
    text = f"# {weights.name}\n\n{part}\n"
    if card.exists():
        try:
            old = card.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {card} ({error}); give a Markdown file, or one that does not exist yet") from error
        text, count = _WRITTEN.subn(lambda _: part, old)
        if count != 1:
            raise UserError(
                f"{card} has {count or 'no'} parts to refresh; put one line '{BEGIN}' and after it one line '{END}' "
                "where they belong, or give a file that does not exist yet"
            )
    with atomic_file(card) as temporary:
        temporary.write_text(text, encoding="utf-8")


def describe(weights: Path) -> str:
    """Return what a weights file says of itself, as Markdown without a heading.

    Raises
    ------
    UserError
        When the file cannot be read or is not one of this project.
    """
    info = read_info(weights)
    parameters = sum(parameter.numel() for parameter in load_network(weights).parameters())
    rows = {
        "network": f"`{info.network}`, {parameters:,} parameters, {find_file(weights).stat().st_size / 1e6:.1f} MB",
        "variant": ", ".join(f"{key} {_plain(value)}" for key, value in info.variant.items()),
        "classes": f"{len(info.classes)}: {', '.join(info.classes)}",
        "pictures, scaled to 0..1, are normalised by": f"mean {_plain(info.mean)}, std {_plain(info.std)}",
    }
    try:
        rows |= _making(info)
        figures = _figures(info, weights)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{weights}: its notes are not as 'enet-tvm train' writes them ({error!r}); give weights that it wrote"
        ) from error
    table = ["| | |", "|---|---|", *(f"| {table_cell(key)} | {table_cell(value)} |" for key, value in rows.items() if value)]
    return "\n".join([*table, "", *figures])


def _making(info: WeightsInfo) -> dict[str, str]:
    """Return how the weights were made, as far as their notes tell."""
    notes = info.without_figures().notes
    rows = {}
    if data := notes.pop("data", None):
        rows["trained on"] = data["train"]
    if started := notes.pop("started_from", None):
        rows["started from"] = _plain(started)
    if recipe := notes.pop("recipe", None):
        name = _built_in(recipe)
        size = f"{recipe.get('epochs', '?')} epochs of windows of {recipe.get('crop', '?')}"
        drawn = f", {count} drawn streets among the pictures" if (count := recipe.get("drawn_streets")) else ""
        rows["recipe"] = f"{f'`{name}`' if name else 'of its own'}: {size}{drawn}"
    if averaged := notes.pop("epochs_averaged", None):
        rows["weights"] = f"mean of those after the epochs {_plain(averaged)}"
    if "epoch" in notes:
        rows.setdefault("weights", f"those after epoch {notes.pop('epoch')}")
    if fitted := notes.pop("logit_bias", None):
        bias = [f"{name} {value:+g}" for name, value in zip(info.classes, fitted["bias"], strict=True) if value]
        rows["`fit-bias`"] = f"on {fitted['on']}: {', '.join(bias) or 'nothing'}"
    return rows | {key.replace("_", " "): _plain(value) for key, value in notes.items()}


def _built_in(recipe: dict[str, Any]) -> str | None:
    """Return the name of the built-in recipe that this is in every epoch, if it is one of today's."""
    try:
        own = _without_epochs(Recipe.model_validate(recipe))
    except ValidationError:
        return None
    return next((name for name in built_in_recipes() if _without_epochs(load_recipe(name)) == own), None)


def _without_epochs(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe does in every epoch; how many there are is told beside its name."""
    return {key: value for key, value in recipe.essence().items() if key.split(".")[-1] != "epochs"}


def _figures(info: WeightsInfo, weights: Path) -> list[str]:
    if held_out := info.notes.get("held_out"):
        return _figures_of_rides(held_out["weights"], held_out["figures"])
    judged = info.notes.get("data", {}).get("val", "val")
    command = _command(judged, name_of(weights))
    if not (val := info.notes.get("val")):
        return ["The file holds no figures. Measured by", f"{command}."]
    rows = [
        f"| {table_cell(name)} | {_percent(one['iou'])} | {_percent(one['accuracy'])} |" for name, one in val["classes"].items()
    ]
    return [
        f"On {'the val split' if judged == 'val' else judged}, {val['pixels']:,} labelled pixels. Measured again by",
        f"{command}.",
        "",
        *("| class | IoU, % | accuracy, % |", "|---|--:|--:|", *rows),
        f"| **mean** | **{_percent(val['miou'])}** | **{_percent(val['class_average'])}** |",
        f"| **global** | | **{_percent(val['global_accuracy'])}** |",
    ]


def _command(judged: str, weights: str) -> str:
    """Return the command that measures weights on what `judged` describes."""
    return " ".join(["`enet-tvm evaluate", "--data DIR", judged_options(judged), f"--weights {weights}`"])


def _figures_of_rides(weights: str, figures: dict[str, dict[str, Any]]) -> list[str]:
    """Return how other weights of the same recipe do on rides that were held out of their training, ride by ride."""
    columns = list(figures.values())
    rows = [
        f"| {table_cell(name)} | {' | '.join(_percent(column['classes'][name]['iou']) for column in columns)} |"
        for name in columns[0]["classes"]
    ]
    named = " | ".join(f"{table_cell(ride)}, {column['pixels']:,} pixels" for ride, column in figures.items())
    means = " | ".join(f"**{_percent(column['miou'])}**" for column in columns)
    accuracies = " | ".join(_percent(column["global_accuracy"]) for column in columns)
    commands = [_command(ride, weights) for ride in figures]
    return [
        "These weights were trained on all rides, and none is left to judge them. Weights made by the same recipe without the",
        f"rides below, `{weights}`, have this IoU there, in per cent. Measured again by",
        " and ".join(commands) + ".",
        "",
        *(f"| class | {named} |", f"|---|{len(columns) * '--:|'}", *rows),
        f"| **mean** | {means} |",
        f"| global accuracy | {accuracies} |",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _plain(value: Any) -> str:
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def table_cell(text: str) -> str:
    """Return text that stays within a cell of a table, and cannot end the part that is written."""
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())
