"""Comparisons as Markdown, and as a page to look at."""

from __future__ import annotations

from collections.abc import Sequence

from enet_tvm.bench.report.figures import Figures
from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.tables import tables, title
from enet_tvm.evaluation.report_page import Bar, Bars, Page, Part, Section, Sentences, table_of


def markdown(results: Sequence[Figures]) -> str:
    """Return comparisons as Markdown, with the notes and warnings beside their tables."""
    parts = []
    for result in results:
        said = [f"- {line}" for line in [*notes(result), *(f"warning: {text}" for text in result.get("warnings", ()))]]
        parts += [*(table.markdown() for table in tables(result)), "\n".join(said)]
    return "\n\n".join(parts) + "\n"


def page(results: Sequence[Figures]) -> Page:
    """Return comparisons as a page: of each, the median latencies as bars, its tables, warnings and notes."""
    return Page(
        "ENet in several runtimes",
        [Section(title(result), _parts(result)) for result in results],
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
