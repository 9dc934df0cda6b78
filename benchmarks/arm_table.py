"""The table of instructions in the README, from `docs/arm.json`, which keeps the figures that the table is of.

python benchmarks/arm_table.py build/arm.json   # takes the figures of runs of benchmarks/arm.py --peer ncnn --json
python benchmarks/arm_table.py                  # writes the table again
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from readme_table import ROOT, write_table

from enet_tvm.artifact import Precision
from enet_tvm.errors import UserError
from enet_tvm.files import read_json
from enet_tvm.targets import load_target

HEADINGS = (
    "target",
    "size of the picture",
    "data type",
    "million instructions",
    "of those multiply-adds",
    "ncnn's",
    "ours / ncnn's",
    "our labels",
    "busiest port",
)


def main(
    results: Annotated[list[Path] | None, typer.Argument(metavar="[ARM.json ...]", help="Of benchmarks/arm.py.")] = None,
    figures: Annotated[Path, typer.Option(help="Where the figures of the table are kept.")] = ROOT / "docs/arm.json",
    readme: Annotated[Path, typer.Option(help="Text whose table is replaced.")] = ROOT / "README.md",
) -> None:
    """Write the table of the README; with results, take their figures first."""

    def counted() -> dict[str, Any] | None:
        if not results:
            return None
        return summarise([result for path in results for result in read_json(path, "give one of benchmarks/arm.py")["results"]])

    write_table(counted, table, figures, readme)


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the table shows of the results of `benchmarks/arm.py`.

    Raises
    ------
    UserError
        When ncnn was not counted, or no loop modelled.
    """
    rows = []
    for result in results:
        ours, theirs = (result["entries"].get(name) for name in ("ours", "ncnn"))
        what = f"{result['target']} at {result['size']} in {result['dtype']}"
        if theirs is None:
            raise UserError(f"{what} has no count of ncnn; run benchmarks/arm.py with --peer ncnn")
        model = load_target(result["target"]).mcpu
        loops = [loop["models"][model] for loop in result["loops"] if model in loop["models"]]
        if not loops:
            raise UserError(f"{what} has no loops that were modelled for {model}; run benchmarks/arm.py without --loops 0")
        rows.append(
            {
                **{name: result[name] for name in ("target", "emulated", "size", "dtype")},
                "instructions": {name: entry["instructions"] for name, entry in result["entries"].items()},
                "kinds": ours["kinds"],
                "labels": {name: entry["labels"] for name, entry in result["entries"].items()},
                "model": {"of": model, "busy": [round(loop["busy"], 3) for loop in loops]},
            }
        )
    rows.sort(key=lambda row: (get_args(Precision).index(row["dtype"]), row["target"], row["size"]))
    return {
        "origin": "benchmarks/arm.py: instructions of a forward pass on one thread, emulated; no time was measured",
        "rows": rows,
    }


def table(kept: dict[str, Any]) -> str:
    """Return the table as Markdown, without a line break at its end."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|---|" + "--:|" * (len(HEADINGS) - 3)]
    for row in kept["rows"]:
        ours, theirs = row["instructions"]["ours"], row["instructions"]["ncnn"]
        busy = sorted({f"{100 * share:.0f}" for share in (min(row["model"]["busy"]), max(row["model"]["busy"]))}, key=int)
        cells = [
            f"`{row['target']}`",
            row["size"],
            row["dtype"],
            f"**{ours / 1e6:.1f}**",
            f"{100 * row['kinds']['fma'] / ours:.0f} %",
            f"{theirs / 1e6:.1f}",
            f"{ours / theirs:.2f}",
            f"{100 * row['labels']['ours']:.2f} %",
            f"{' to '.join(busy)} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
