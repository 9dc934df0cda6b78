from __future__ import annotations

from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.tables import tables


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


def test_clocks_of_gpus_are_named_and_what_is_not_measured_is_said(result):
    for moment in ("before", "after"):
        result["machine"][moment]["mhz"] |= {"cpu1": 2400.0, "NVIDIA H100": 1755.0}
    result["not_measured"] = ["energy of the GPU is not measured, because it is shy"]
    said = notes(result)
    assert "2400 MHz, NVIDIA H100 1755 MHz and 55 °C before, 2400 MHz, NVIDIA H100 1755 MHz and 60 °C after" in said[4]
    assert said[-1] == "energy of the GPU is not measured, because it is shy"
