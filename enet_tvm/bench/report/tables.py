"""The tables of a comparison: latency, and the footprint of each runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enet_tvm.bench.measure.roofline import PROMISED
from enet_tvm.bench.report.figures import Figures

OURS = "tvm"
"""Name of the runner that ratios are relative to; where it was not timed, another of ours, else the first."""


@dataclass(frozen=True)
class TableText:
    """A table, cell by cell.

    Attributes
    ----------
    title : str
    headings : tuple of str
        Headings of the columns: names in the first, figures in the others.
    rows : tuple of tuple of str
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        rules = ["---", *["--:"] * (len(self.headings) - 1)]
        lines = [self.headings, rules, *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


def tables(result: Figures) -> list[TableText]:
    """Return the tables of one comparison: latency, and the footprints if they were measured."""
    latency = _table(title(result), result, _latency_columns(result))
    if not any(entry.get("footprint") for entry in result["entries"]):
        return [latency]
    return [latency, _table("Each by itself", result, _footprint_columns(result))]


def title(result: Figures) -> str:
    """Return the heading of a comparison: size, threads, and the limit where one is known."""
    parts = [str(result["size"]), f"{result['threads']} thread{'s' * (result['threads'] != 1)}"]
    if result.get("limit_ms"):
        promise = result.get("limit_source") or PROMISED
        source = "" if result.get("limit_measured", True) else f" by {promise}"
        parts.append(f"arithmetic limit {result['limit_ms']:.1f} ms{source}")
    return ", ".join(parts)


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Figures], str]
    """Returns the text of the column's cell for an entry of the comparison."""
    needed: bool = False
    """Whether the column stays even when all its cells are empty."""


def _table(title: str, result: Figures, columns: Sequence[_Column]) -> TableText:
    rows = [(entry["name"], *(column.cell(entry) for column in columns)) for entry in result["entries"]]
    kept = [
        number for number, column in enumerate(columns, 1) if column.needed or any(row[number] not in ("", "-") for row in rows)
    ]
    return TableText(
        title,
        ("runner", *(columns[number - 1].heading for number in kept)),
        tuple((row[0], *(row[number] for number in kept)) for row in rows),
    )


def _latency_columns(result: Figures) -> list[_Column]:
    base = _base(result)

    def timed(show: Callable[[Figures], str], otherwise: str = "") -> Callable[[Figures], str]:
        return lambda entry: show(entry["latency"]) if entry["latency"] else otherwise

    def spread(times: Figures) -> str:
        return f"{times['p10_ms']:.1f}-{times['p90_ms']:.1f}" + ("" if times["steady"] else " (!)")

    def transfer(times: Figures) -> str:
        return f"{times['transfer_ms']:.1f}" if times.get("transfer_ms") else "-"

    return [
        _Column("median ms", timed(lambda times: f"{times['median_ms']:.1f}", "fails parity"), needed=True),
        _Column("p10-p90", timed(spread), needed=True),
        _Column("p99", timed(lambda times: f"{times['p99_ms']:.1f}"), needed=True),
        _Column("transfer ms", timed(transfer)),
        _Column(f"x {base[0]}", timed(lambda times: f"{times['median_ms'] / base[1]:.2f}")) if base else _Column("", _nothing),
        _Column("same labels", lambda entry: f"{entry['label_agreement']:.4%}", needed=True),
    ]


def _footprint_columns(result: Figures) -> list[_Column]:
    def of(show: Callable[[Figures], str]) -> Callable[[Figures], str]:
        return lambda entry: show(entry["footprint"]) if entry.get("footprint") else ""

    def rate(streams: int) -> Callable[[Figures], str]:
        def show(footprint: Figures) -> str:
            found = [rate for rate in footprint["throughput"] if rate["streams"] == streams]
            return f"{found[0]['images_per_second']:.1f}" if found else "-"

        return show

    def number(key: str, factor: float, form: str) -> Callable[[Figures], str]:
        return lambda figures: "-" if figures.get(key) is None else format(figures[key] * factor, form)

    def first(entry: Figures) -> str:
        # One on a device is not started a second time: what the first start took counts.
        seen = [entry["footprint"].get("first_ms"), entry.get("first_ms")] if entry.get("footprint") else []
        return next((f"{value:.0f}" for value in seen if value is not None), "")

    def energy(footprint: Figures) -> str:
        return f"{footprint['energy'][0]['joules_per_pass']:.3g}" if footprint["energy"] else "-"

    footprints = [entry["footprint"] for entry in result["entries"] if entry.get("footprint")]
    counts = sorted({rate["streams"] for footprint in footprints for rate in footprint["throughput"]})
    meters = [footprint["energy"][0]["meter"] for footprint in footprints if footprint["energy"]]
    return [
        _Column("load s", of(number("load_seconds", 1, ".2f"))),
        _Column("first ms", first),
        *(_Column(f"images/s, {count} stream{'s' * (count > 1)}", of(rate(count))) for count in counts),
        _Column("memory MB", of(number("memory_bytes", 1e-6, ".0f"))),
        _Column("artifact MB", number("artifact_bytes", 1e-6, ".1f")),
        _Column(f"J/image, {meters[0]}" if meters else "J/image", of(energy)),
    ]


def _nothing(_: Figures) -> str:
    return ""


def _base(result: Figures) -> tuple[str, float] | None:
    medians = {entry["name"]: entry["latency"]["median_ms"] for entry in result["entries"] if entry["latency"]}
    for name in (OURS, *(name for name in medians if name.startswith(OURS)), *medians):
        if name in medians:
            return ("ours" if name.startswith(OURS) else name), medians[name]
    return None
