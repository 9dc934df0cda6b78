from __future__ import annotations

import copy
import json

import pytest

from enet_tvm.bench.latency import Latency
from enet_tvm.bench.report import load_figures, markdown, notes, page, tables
from enet_tvm.errors import UserError
from enet_tvm.report_page import Bars, Sentences, Table, render

TIMES = Latency((0.010, 0.011, 0.012)).to_dict()
SLOW = Latency((0.020, 0.020, 0.050)).to_dict()
RESULT = {
    "format": 2,
    "size": "640x360",
    "threads": 2,
    "target": "native",
    "weights": {"file": "w", "sha256": "ab" * 32},
    "limit_ms": 9.0,
    "limit_measured": True,
    "machine": {
        "processor": "AMD EPYC",
        "board": "",
        "processors": 2,
        "memory_bytes": 2**34,
        "gpus": [],
        "governor": "performance",
        "system": "Linux 6",
        "before": {"mhz": {"cpu0": 2600.0}, "celsius": {"cpu": 50.0, "gpu": 55.0}},
        "after": {"mhz": {"cpu0": 2500.0}, "celsius": {"cpu": 60.0, "gpu": 58.0}},
    },
    "versions": {"enet-tvm": "0.1.0"},
    "entries": [
        {
            "name": "tvm",
            "description": "ours",
            "label_agreement": 1.0,
            "ready_seconds": 3.0,
            "artifact_bytes": 2_000_000,
            "latency": TIMES,
            "footprint": {
                "load_seconds": 0.03,
                "first_ms": 80.0,
                "memory_bytes": 40_000_000,
                "throughput": [
                    {"streams": 1, "threads": 2, "images_per_second": 90.9},
                    {"streams": 4, "threads": 1, "images_per_second": 150.0},
                ],
                "energy": [{"meter": "VDD_IN (ina3221)", "joules_per_pass": 0.0654, "watts": 5.0}],
                "problem": "",
            },
            "device": None,
        },
        {
            "name": "openvino",
            "description": "theirs",
            "label_agreement": 1.0,
            "ready_seconds": 1.0,
            "artifact_bytes": None,
            "latency": SLOW,
            "footprint": None,
            "device": None,
        },
        {
            "name": "wrong",
            "description": "always sky",
            "label_agreement": 0.1,
            "ready_seconds": 1.0,
            "artifact_bytes": None,
            "latency": None,
            "footprint": None,
            "device": None,
        },
    ],
    "missing": {"onnxruntime": "onnxruntime is not installed; run: pip install onnxruntime"},
    "warnings": ["too warm"],
}


@pytest.fixture
def result():
    return copy.deepcopy(RESULT)


def test_latency_table(result):
    latency, _ = tables(result)
    assert latency.title == "640x360, 2 threads, arithmetic limit 9.0 ms"
    assert latency.headings == ("runner", "median ms", "p10-p90", "p99", "x ours", "same labels")
    ours, theirs, wrong = latency.rows
    assert ours == ("tvm", "11.0", "10.2-11.8", "12.0", "1.00", "100.0000%")
    assert theirs == ("openvino", "20.0", "20.0-44.0 (!)", "49.4", "1.82", "100.0000%")
    assert wrong == ("wrong", "fails parity", "", "", "", "10.0000%")


def test_transfer_shows_where_there_is_one(result):
    result["entries"][0]["latency"]["transfer_ms"] = 4.0
    latency, _ = tables(result)
    assert latency.headings[4] == "transfer ms"
    assert [row[4] for row in latency.rows] == ["4.0", "-", ""]


def test_footprint_table(result):
    _, footprint = tables(result)
    assert dict(zip(footprint.headings, footprint.rows[0], strict=True)) == {
        "runner": "tvm",
        "load s": "0.03",
        "first ms": "80",
        "images/s, 1 stream": "90.9",
        "images/s, 4 streams": "150.0",
        "memory MB": "40",
        "artifact MB": "2.0",
        "J/image, VDD_IN (ina3221)": "0.0654",
    }
    for entry in result["entries"]:
        entry["footprint"] = None
    assert len(tables(result)) == 1


def test_what_was_not_measured_has_no_column(result):
    result["entries"][0]["footprint"] |= {"energy": [], "memory_bytes": None}
    _, footprint = tables(result)
    assert not any("J/image" in heading or "memory" in heading for heading in footprint.headings)
    assert "no energy: the machine does not say what power it takes" in notes(result)


def test_notes(result):
    assert notes(result) == [
        "tvm: ours; ready in 3 s",
        "openvino: theirs; ready in 1 s",
        "wrong: always sky; ready in 1 s",
        "onnxruntime is missing: onnxruntime is not installed; run: pip install onnxruntime",
        "host: AMD EPYC, 2 processors, 16.0 GiB, Linux 6, governor performance; "
        "2600 MHz and 55 °C before, 2500 MHz and 60 °C after",
        "weights abababababab, target native, enet-tvm 0.1.0",
    ]


def test_a_device_is_named(result):
    result["entries"][0]["device"] = {
        **{"board": "Raspberry Pi 4", "processor": "Cortex-A72"},
        **{"before": {"mhz": {"cpu0": 1500.0}, "celsius": {}}, "after": {"mhz": {"cpu0": 600.0}, "celsius": {}}},
    }
    result["entries"][0]["first_ms"] = 70.0
    result["entries"][0]["footprint"] |= {"load_seconds": None, "first_ms": None}
    assert notes(result)[:3] == [
        "tvm: ours; ready in 3 s",
        "tvm runs on Raspberry Pi 4, Cortex-A72; 1500 MHz before, 600 MHz after",
        "tvm: memory is that of its whole process there, libraries included",
    ]
    _, footprint = tables(result)
    assert footprint.headings[1] == "first ms"
    assert footprint.rows[0][1] == "70"


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


def test_files_of_the_release_before_are_still_read(tmp_path):
    known = ("name", "description", "label_agreement", "ready_seconds", "latency")
    old = {
        **{key: RESULT[key] for key in ("size", "threads", "target", "limit_ms", "versions", "missing")},
        "machine": {"processor": "AMD EPYC", "platform": "Linux"},
        "entries": [{key: RESULT["entries"][0][key] for key in known}],
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
