"""Comparisons as people read them: tables and notes, from the figures of `Comparison.to_dict` or of a file of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from enet_tvm.errors import UserError
from enet_tvm.files import read_json
from enet_tvm.report_page import Bar, Bars, Page, Part, Section, Sentences, table_of

OURS = "tvm"
"""The runner that ratios are relative to, where it was timed; else one over RPC, else the first."""

Figures = dict[str, Any]


class _Times(BaseModel):
    """What of a result is computed with; older files lack much of the rest, which is only shown."""

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


@dataclass(frozen=True)
class TableText:
    """A table, cell by cell.

    Attributes
    ----------
    title : str
    headings : tuple of str
        The first is of names, the others are of figures.
    rows : tuple of tuple of str
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return it as Markdown."""
        rules = ["---", *["--:"] * (len(self.headings) - 1)]
        lines = [self.headings, rules, *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


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


def tables(result: Figures) -> list[TableText]:
    """Return the tables of one comparison: latency, and what each runner takes besides, if that was measured."""
    latency = _table(_title(result), result, _latency_columns(result))
    if not any(entry.get("footprint") for entry in result["entries"]):
        return [latency]
    return [latency, _table("Each by itself", result, _footprint_columns(result))]


def notes(result: Figures) -> list[str]:
    """Return what is to be said beside the tables: what each runner is, what is missing, what it ran on."""
    lines = []
    for entry in result["entries"]:
        lines.append(f"{entry['name']}: {entry['description']}; ready in {entry['ready_seconds']:.0f} s")
        if entry.get("device"):
            lines.append(f"{entry['name']} runs on {_machine(entry['device'])}; {_state(entry['device'])}")
            if (entry.get("footprint") or {}).get("memory_bytes"):
                lines.append(f"{entry['name']}: memory is that of its whole process there, libraries included")
    lines += [f"{name} is missing: {reason}" for name, reason in result["missing"].items()]
    lines.append(f"host: {_machine(result['machine'])}; {_state(result['machine'])}")
    lines.append(_made_of(result))
    footprints = [entry["footprint"] for entry in result["entries"] if entry.get("footprint")]
    if footprints and not any(footprint["energy"] for footprint in footprints):
        lines.append("no energy: the machine does not say what power it takes")
    return lines


def markdown(results: Sequence[Figures]) -> str:
    """Return comparisons as Markdown, with all that is said beside their tables."""
    parts = []
    for result in results:
        said = [f"- {line}" for line in [*notes(result), *(f"warning: {text}" for text in result.get("warnings", ()))]]
        parts += [*(table.markdown() for table in tables(result)), "\n".join(said)]
    return "\n\n".join(parts) + "\n"


def page(results: Sequence[Figures]) -> Page:
    """Return comparisons as a page: of each, the median latencies as bars, its tables, and all that is said beside them."""
    return Page(
        "ENet in several runtimes",
        [Section(_title(result), _parts(result)) for result in results],
        {
            "measured": "in turns, in one run; a runner whose labels are not PyTorch's has no times",
            "spread": "the line at the end of a bar goes from the 10th to the 90th percentile",
        },
        next((result["command"] for result in results if result.get("command")), ""),
    )


def _parts(result: Figures) -> list[Part]:
    timed = [(entry["name"], entry["latency"]) for entry in result["entries"] if entry["latency"]]
    bars = tuple(
        Bar(name, times["median_ms"], f"{times['median_ms']:.1f} ms", (times["p10_ms"], times["p90_ms"]))
        for name, times in timed
    )
    parts: list[Part] = [Bars("Median latency, shorter is better", bars)] if bars else []
    for number, text in enumerate(tables(result)):
        parts.append(table_of(text.headings, text.rows, "Latency" if number == 0 else text.title))
    if warnings := tuple(result.get("warnings", ())):
        parts.append(Sentences(warnings, warning=True))
    return [*parts, Sentences(tuple(notes(result)))]


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Figures], str]
    """Given an entry that has what the column is about."""
    needed: bool = False
    """Whether it stays even when it is empty."""


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


def _title(result: Figures) -> str:
    parts = [str(result["size"]), f"{result['threads']} thread{'s' * (result['threads'] != 1)}"]
    if result.get("limit_ms"):
        source = "" if result.get("limit_measured", True) else " by the target's specification"
        parts.append(f"arithmetic limit {result['limit_ms']:.1f} ms{source}")
    return ", ".join(parts)


def _machine(machine: Figures) -> str:
    """Return a machine in words; older files know the processor alone."""
    memory = machine.get("memory_bytes")
    parts = [
        machine.get("board"),
        machine.get("processor"),
        machine.get("usable") or (f"{machine['processors']} processors" if machine.get("processors") else ""),
        *machine.get("gpus", ()),
        f"{memory / 2**30:.1f} GiB" if memory else "",
        machine.get("system"),
        f"governor {machine['governor']}" if machine.get("governor") else "",
    ]
    return ", ".join(part for part in parts if part) or "a machine that does not say what it is"


def _state(machine: Figures) -> str:
    texts = []
    for moment in ("before", "after"):
        state = machine.get(moment, {})
        clocks, heat = state.get("mhz", {}), state.get("celsius", {})
        if clocks or heat:
            words = [f"{min(clocks.values()):.0f} MHz"] if clocks else []
            words += [f"{max(heat.values()):.0f} °C"] if heat else []
            texts.append(f"{' and '.join(words)} {moment}")
    return ", ".join(texts) or "it tells neither clocks nor temperatures"


def _made_of(result: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    weights = result.get("weights", {})
    return f"weights {weights.get('sha256', 'unknown')[:12]}, target {result['target']}, {versions}"
