from __future__ import annotations

import json

import pytest

from enet_tvm.bench.report.figures import load_figures
from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.page import markdown, page
from enet_tvm.bench.report.tables import tables
from enet_tvm.errors import UserError
from enet_tvm.evaluation.report_page import render


def test_files_of_the_release_before_are_still_read(result, tmp_path):
    known = ("name", "description", "label_agreement", "ready_seconds", "latency")
    old = {
        **{key: result[key] for key in ("size", "threads", "target", "limit_ms", "versions", "missing")},
        "machine": {"processor": "AMD EPYC", "platform": "Linux"},
        "entries": [{key: result["entries"][0][key] for key in known}],
    }
    (tmp_path / "old.json").write_text(json.dumps([old]))
    (figures,) = load_figures(tmp_path / "old.json")
    assert len(tables(figures)) == 1
    assert "host: AMD EPYC; it tells neither clocks nor temperatures" in notes(figures)
    why = "2 of 64 processors: the CPU quota of 2 of its control group"
    figures["machine"] |= {"processors": 64, "usable": why}
    assert any(note.startswith(f"host: AMD EPYC, {why};") for note in notes(figures))
    assert markdown([figures])
    assert "AMD EPYC" in render(page([figures]))


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[1]", '[{"size": "1x1"}]'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="give a file of 'enet-tvm bench --json'"):
        load_figures(path)
