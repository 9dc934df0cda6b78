"""The figures of comparisons, as `Comparison.to_dict` gives them and `enet-tvm bench --json` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from enet_tvm.errors import UserError
from enet_tvm.files import read_json

Figures = dict[str, Any]


class _Times(BaseModel):
    """The figures of a result that are computed with; older files lack much of the rest, which is only shown."""

    median_ms: Annotated[FiniteFloat, Field(gt=0)]
    p10_ms: FiniteFloat
    p90_ms: FiniteFloat


class _Rate(BaseModel):
    streams: int
    images_per_second: FiniteFloat


class _Energy(BaseModel):
    meter: str
    joules_per_pass: FiniteFloat


class _Footprint(BaseModel):
    throughput: tuple[_Rate, ...] = ()
    energy: tuple[_Energy, ...] = ()


class _Entry(BaseModel):
    name: str
    description: str
    latency: _Times | None
    footprint: _Footprint | None = None


class _Result(BaseModel):
    size: str
    threads: int
    entries: tuple[_Entry, ...]
    versions: dict[str, str] = {}


_RESULTS = TypeAdapter(tuple[_Result, ...])


def load_figures(path: Path) -> list[Figures]:
    """Read a file of ``bench --json`` or of benchmarks/latency.py.

    Raises
    ------
    UserError
        When it is not one.
    """
    content = read_json(path, "give a file of 'enet-tvm bench --json'")
    try:
        _RESULTS.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(
            f"{path} holds no results of a benchmark ({where}: {first['msg']}); give a file of 'enet-tvm bench --json'"
        ) from error
    return content
