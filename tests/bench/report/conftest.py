from __future__ import annotations

import copy

import pytest

from enet_tvm.bench.measure.latency import Latency

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
