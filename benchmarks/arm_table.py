"""The tables of instructions in README.md and docs/arm.md, from `docs/arm.json`, which keeps the figures that they are of.

python benchmarks/arm_table.py rpi4.json rpi5.json   # takes the figures of runs of benchmarks/arm.py --peer all --json
python benchmarks/arm_table.py --keep rpi3.json      # takes these rows anew, and keeps the others, and peers not counted anew
python benchmarks/arm_table.py                       # writes the tables again
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from counting.peers import PEERS
from readme_table import ROOT, write_table

from enet_tvm.artifact import Precision
from enet_tvm.errors import UserError
from enet_tvm.files import read_json

HEADINGS = (
    *("target", "size of the picture", "data type", "million instructions", "of those multiply-adds"),
    *(peer.title for peer in PEERS.values()),
    *("ours / the best peer's", "our labels", "busiest port"),
)
KERNELS = {
    "1x1": r"conv2d_1x1_",
    "3x3, Winograd": r"conv2d_3x3_.*_winograd$",
    "3x3": r"conv2d_3x3_",
    "5x1 and 1x5": r"conv2d_(5x1|1x5)_",
    "2x2": r"conv2d_2x2_",
    "transposed": r"conv2d_transpose_",
    "initial block": r"initial_block",
    "max pooling": r"max_pool2d",
}
"""What the names of each kind of kernel begin with; the first that fits."""
REST = "rest"
"""The heading of what is in no such kernel: the virtual machine, the picture's reading, the logits' writing."""
_JUDGED = ("1x1", "3x3, Winograd", "3x3")
"""Kinds whose hottest code the column of the busiest port is of: nearly all of the arithmetic."""
_LEAST = 0.01
"""Share of the instructions that a kernel has at least to be asked for its busiest port."""
_SAME = 1e-3
"""How far apart two counts of ours may be: what the runner says and how long the clock took is less."""


def main(
    results: Annotated[list[Path] | None, typer.Argument(metavar="[ARM.json ...]", help="Of benchmarks/arm.py.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows, and peers, that the results have nothing of.")] = False,
    figures: Annotated[Path, typer.Option(help="Where the figures of the tables are kept.")] = ROOT / "docs/arm.json",
    readme: Annotated[Path, typer.Option(help="Text whose table of runtimes is replaced.")] = ROOT / "README.md",
    kernels: Annotated[Path, typer.Option(help="Text whose table of kernels is replaced.")] = ROOT / "docs/arm.md",
) -> None:
    """Write the tables; with results, take their figures first. Of a row that was counted in parts, each brings what it has."""

    def counted() -> dict[str, Any] | None:
        if not results:
            return None
        found = [result for path in results for result in read_json(path, "give one of benchmarks/arm.py")["results"]]
        return summarise(found, read_json(figures, "leave --keep out")["rows"] if keep else ())

    write_table(counted, table, figures, readme)
    write_table(lambda: None, kernel_table, figures, kernels)


def summarise(results: Sequence[dict[str, Any]], old: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return what the tables show of the results of `benchmarks/arm.py`, and of old rows those that are not counted anew.

    Of a row that is, the peers that are not keep their counts, which neither ours nor the weights change, but not their labels.

    Raises
    ------
    UserError
        When two runs of one row count ours differently, or none of them says what its kernels execute.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for result in results:
        key = result["target"], result["size"], result["dtype"]
        row = rows.setdefault(key, {**result, "entries": {}, "kernels": []})
        ours, before = result["entries"]["ours"], row["entries"].get("ours", result["entries"]["ours"])
        if abs(ours["instructions"] / before["instructions"] - 1) > _SAME:
            what = f"{before['instructions']} and {ours['instructions']} instructions"
            raise UserError(f"{_name(row)} was counted twice and ours has {what}; count it again with the same weights")
        row["entries"] |= result["entries"]
        row["kernels"] = result.get("kernels") or row["kernels"]
    before = {(row["target"], row["size"], row["dtype"]): row for row in old}
    kept = [_with_peers(_row(row), before.get(key)) for key, row in rows.items()]
    kept += [row for key, row in before.items() if key not in rows]
    kept.sort(key=lambda row: (get_args(Precision).index(row["dtype"]), row["target"], row["size"]))
    return {
        "origin": "benchmarks/arm.py: instructions of a forward pass on one thread, emulated; no time was measured",
        "rows": kept,
    }


def _with_peers(row: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row with the counts of the peers that only the row of before has."""
    counts = before["instructions"] | row["instructions"] if before else row["instructions"]
    return row | {"instructions": {name: counts[name] for name in ("ours", *PEERS) if name in counts}}


def _name(row: dict[str, Any]) -> str:
    return f"{row['target']} at {row['size']} in {row['dtype']}"


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the tables."""
    entries, ours = result["entries"], result["entries"]["ours"]
    groups: dict[str, dict[str, Any]] = {}
    for kernel in result["kernels"]:
        name = next((name for name, pattern in KERNELS.items() if re.match(pattern, kernel["name"])), REST)
        group = groups.setdefault(name, {"instructions": 0, "kinds": Counter[str](), "busy": [], "without_loads": []})
        hottest = {"instructions": kernel["hottest"]["instructions"], "fma": kernel["hottest"]["kinds"].get("fma", 0)}
        group.setdefault("largest", {"name": kernel["name"], "hottest": hottest})
        group["instructions"] += kernel["instructions"]
        group["kinds"].update(kernel["kinds"])
        if kernel["instructions"] >= _LEAST * ours["instructions"] and "busy" in kernel["hottest"]:
            group["busy"].append(round(kernel["hottest"]["busy"], 3))
            if "without_loads" in kernel["hottest"]:
                group["without_loads"].append(round(kernel["hottest"]["without_loads"]["busy"], 3))
    if not any(group["busy"] for name, group in groups.items() if name in _JUDGED):
        raise UserError(f"{_name(result)} has no kernels with a model; count it with this release's benchmarks/arm.py")
    models = {kernel["hottest"]["model"] for kernel in result["kernels"] if "model" in kernel["hottest"]}
    return {
        **{name: result[name] for name in ("target", "emulated", "size", "dtype")},
        "instructions": {name: entries[name]["instructions"] for name in ("ours", *PEERS) if name in entries},
        "kinds": ours["kinds"],
        "labels": {name: entries[name]["labels"] for name in ("ours", *PEERS) if name in entries},
        "model": min(models),
        "kernels": {name: groups[name] for name in KERNELS if name in groups},
    }


def table(kept: dict[str, Any]) -> str:
    """Return the table of runtimes as Markdown, without a line break at its end."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|---|" + "--:|" * (len(HEADINGS) - 3)]
    for row in kept["rows"]:
        counts = dict(row["instructions"])
        ours = counts.pop("ours")
        busy = [share for name in _JUDGED if name in row["kernels"] for share in row["kernels"][name]["busy"]]
        cells = [
            *(f"`{row['target']}`", row["size"], row["dtype"], f"**{ours / 1e6:.1f}**", _share(row["kinds"]["fma"], ours)),
            *(f"{counts[name] / 1e6:.1f}" if name in counts else "-" for name in PEERS),
            f"{ours / min(counts.values()):.2f}" if counts else "-",
            f"{100 * row['labels']['ours']:.2f} %",
            _span(busy),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def kernel_table(kept: dict[str, Any]) -> str:
    """Return the table of kernels as Markdown: millions of instructions, multiply-adds among them, the busiest port."""
    headings = ("target", "data type", *KERNELS, REST)
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "--:|" * (len(headings) - 2)]
    for row in kept["rows"]:
        left, cells = Counter(row["kinds"]), [f"`{row['target']}`", row["dtype"]]
        for name in KERNELS:
            group = row["kernels"].get(name)
            if group is None:
                cells.append("-")
                continue
            left.subtract(group["kinds"])
            parts = [f"{group['instructions'] / 1e6:.1f}", _share(group["kinds"]["fma"], group["instructions"])]
            cells.append(", ".join([*parts, _span(group["busy"])] if group["busy"] else parts))
        cells.append(f"{sum(left.values()) / 1e6:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _span(shares: Sequence[float]) -> str:
    """Return the least and the largest share in per cent, or the one that both are."""
    return " to ".join(sorted({f"{100 * share:.0f}" for share in (min(shares), max(shares))}, key=int)) + " %"


if __name__ == "__main__":
    typer.run(main)
