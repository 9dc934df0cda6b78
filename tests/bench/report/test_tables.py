from __future__ import annotations

from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.tables import tables


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
