from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import enet_tvm
from enet_tvm import agreement
from enet_tvm.agreement import NOISE, PICTURES, PICTURES_MIOU
from enet_tvm.artifact import Manifest
from enet_tvm.bench.runners.base import Precision
from enet_tvm.cli.main import main

DTYPES = set(get_args(Manifest.model_fields["dtype"].annotation))


def test_every_dtype_has_its_limits() -> None:
    assert set(PICTURES) == set(PICTURES_MIOU) == set(NOISE) == DTYPES == set(get_args(Precision))


def test_the_fewer_bits_the_wider_the_limits() -> None:
    order = ["float32", "float16", "bfloat16", "int8"]
    for table in (PICTURES, NOISE):
        assert [table[dtype] for dtype in order] == sorted(table.values(), reverse=True)
    assert [PICTURES_MIOU[dtype] for dtype in order] == sorted(PICTURES_MIOU.values())
    # On noise rounding moves at least as many labels as on pictures.
    assert all(NOISE[dtype] <= PICTURES[dtype] for dtype in order)


def test_the_table_is_what_the_module_holds() -> None:
    """The table is written down for readers: its figures are those of the constants."""
    rows = {match[1]: match[0] for match in re.finditer(r"^`(\w+)`.*$", agreement.__doc__ or "", re.MULTILINE)}
    found = {name: [float(figure) for figure in re.findall(r"\b0\.\d+", row)] for name, row in rows.items()}
    assert found == {
        "PICTURES": list(PICTURES.values()),
        "NOISE": list(NOISE.values()),
        "SEGNET": [agreement.SEGNET],
        "EXPORT": [agreement.EXPORT],
    }


def test_no_module_has_a_limit_of_its_own() -> None:
    own = []
    for path in Path(enet_tvm.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            own += [f"{path.name}: {name}" for name in names if re.search("AGREEMENT|LOGIT_TOLERANCE|MIOU_DIFF", name)]
    assert own == ["agreement.py: LOGIT_TOLERANCE"]


def test_help_says_the_limits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    shown = capsys.readouterr().out
    for table in (PICTURES, PICTURES_MIOU):
        shorter = ", ".join(f"{table[dtype]:g} in {dtype}" for dtype in ("float16", "bfloat16", "int8"))
        assert f"by default {table['float32']:g}, {shorter}" in shown
