"""What int8 needs to know beyond the weights: the range of every layer's output on real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, read_json
from enet_tvm.places import find_file


class Calibration(BaseModel):
    """The ranges of a network's layers, written as JSON beside its weights.

    Attributes
    ----------
    weights : str
        SHA-256 of the weights file, or `enet_tvm.networks.NetworkInMemory.sha256`.
    pictures : int
        Number of pictures that the ranges were seen on.
    source : str
        Description of the pictures.
    ranges : dict
        Layer -> least and largest value of its output; under ``input``, those of the network's input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    pictures: Annotated[int, Field(ge=1)]
    source: str
    ranges: dict[str, tuple[FiniteFloat, FiniteFloat]]

    def write(self, path: str | Path) -> None:
        """Write it as a JSON file."""
        with atomic_file(Path(path)) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_calibration(path: str | Path, weights: str) -> Calibration:
    """Return the calibration in a file.

    Parameters
    ----------
    path : str or Path
        File of ``enet-tvm calibrate``.
    weights : str
        SHA-256 of the weights that it must be of.

    Raises
    ------
    UserError
        When the file is missing, broken, or of other weights.
    """
    again = "make one with 'enet-tvm calibrate'"
    content = read_json(find_file(path), again)
    try:
        calibration = Calibration.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(f"{path} is not a calibration ({where}: {first['msg']}); {again}") from error
    if calibration.weights != weights:
        raise UserError(f"{path} is of other weights; {again} for these")
    return calibration


def calibration_beside(weights: Path) -> Path:
    """Return where the calibration of a weights file is looked for: beside it."""
    return weights.with_suffix(".calibration.json")
