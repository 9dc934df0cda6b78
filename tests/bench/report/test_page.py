from __future__ import annotations

import pytest

from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.page import markdown, page
from enet_tvm.bench.report.tables import tables
from enet_tvm.evaluation.report_page import Bars, Sentences, Table, render


def test_markdown(result):
    text = markdown([result])
    assert "| tvm | 11.0 | 10.2-11.8 | 12.0 | 1.00 | 100.0000% |" in text
    assert "| --- | --: | --: | --: | --: | --: |" in text
    assert "- warning: too warm" in text
    assert "- onnxruntime is missing" in text


def test_a_page_says_what_the_tables_and_notes_say(result):
    result["command"] = "enet-tvm bench --html b.html"
    made = page([result, result | {"size": "480x320"}])
    assert made.command == result["command"]
    assert [section.title.split(",")[0] for section in made.sections] == ["640x360", "480x320"]
    bars, latency, footprint, warnings, said = made.sections[0].parts
    assert isinstance(bars, Bars)
    assert [bar.name for bar in bars.bars] == ["tvm", "openvino"]  # one that fails parity has no time
    assert [bar.text for bar in bars.bars] == ["11.0 ms", "20.0 ms"]
    assert bars.bars[0].spread == pytest.approx((10.2, 11.8))
    assert isinstance(latency, Table)
    assert (latency.headings, latency.rows) == (tables(result)[0].headings, tables(result)[0].rows)
    assert isinstance(footprint, Table)
    assert footprint.rows == tables(result)[1].rows
    assert warnings == Sentences(("too warm",), warning=True)
    assert said == Sentences(tuple(notes(result)))
    assert "fails parity" in render(made)


def test_a_page_of_runners_that_all_fail_parity(result):
    result["entries"] = [result["entries"][2]]
    assert "always sky" in render(page([result]))
