from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from enet_tvm.bench.measure.latency import Latency
from enet_tvm.bench.report.changes import LatencyChange, find_changes


def entry(name: str, *milliseconds: float, **others: Any) -> dict[str, Any]:
    latency = Latency(tuple(1e-3 * ms for ms in milliseconds)).to_dict() if milliseconds else None
    return {"name": name, "description": name, "latency": latency, **others}


def result(*entries: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"size": "640x360", "threads": 2, "entries": list(entries), **others}


def test_a_difference_beyond_the_spread():
    (change,) = find_changes([result(entry("tvm", 10, 10.5, 11))], [result(entry("tvm", 20, 21, 22))]).runners
    assert change.latency.ratio == pytest.approx(2)
    assert change.latency.spread_ms == pytest.approx(1.6)  # the larger one
    assert change.latency.exceeds_spread


@pytest.mark.parametrize(("after", "exceeds"), [(10.9, False), (9.1, False), (11.1, True), (8.9, True)])
def test_it_counts_in_both_directions(after, exceeds):
    assert LatencyChange(10.0, after, spread_ms=1.0).exceeds_spread is exceeds


def test_other_figures():
    before = entry(
        "tvm",
        10,
        artifact_bytes=2_000_000,
        footprint={
            "first_ms": 80,
            "memory_bytes": 40,
            "load_seconds": None,
            "throughput": [{"streams": 2, "threads": 1, "images_per_second": 100.0}],
            "energy": [{"meter": "VDD_IN", "joules_per_pass": 0.5, "watts": 5}],
        },
    )
    after = copy.deepcopy(before)
    after["footprint"]["memory_bytes"] = 50
    after["footprint"]["throughput"][0]["images_per_second"] = 120.0
    (change,) = find_changes([result(before)], [result(after)]).runners
    assert change.others == {
        "memory, bytes": (40, 50),
        "images/s, 2 streams": (100.0, 120.0),
        "J/image, VDD_IN": (0.5, 0.5),
    }
    assert change.sentences == ()


def test_parity_lost_and_won():
    changes = find_changes([result(entry("a", 1), entry("b"))], [result(entry("a"), entry("b", 1))]).runners
    assert [(change.runner, change.latency, change.sentences) for change in changes] == [
        ("a", None, ("fails parity now",)),
        ("b", None, ("failed parity before",)),
    ]


def test_runners_and_sizes_of_one_side_only():
    changes = find_changes(
        [result(entry("a", 1)), {**result(entry("a", 1)), "size": "64x48"}], [result(entry("b", 1)), {**result(), "threads": 9}]
    )
    assert [(change.runner, change.sentences) for change in changes.runners] == [
        ("a", ("there before only",)),
        ("b", ("there after only",)),
    ]
    assert changes.conditions == (
        "64x48 on 2 threads was measured before only",
        "640x360 on 9 threads was measured after only",
    )


def test_conditions():
    before = result(
        machine={"processor": "A", "governor": "performance", "gpus": [], "memory_bytes": 1},
        versions={"enet-tvm": "0.1.0", "torch": "2.12"},
        weights={"sha256": "a" * 64},
        target="native",
    )
    after = copy.deepcopy(before)
    after["machine"] |= {"governor": "powersave", "gpus": ["H200"]}
    after["versions"] = {"enet-tvm": "0.1.0", "torch": "2.13", "openvino": "2026"}
    after["weights"]["sha256"] = "b" * 64
    assert find_changes([before], [after]).conditions == (
        "GPUs: none before, H200 after",
        "governor: performance before, powersave after",
        "weights: aaaaaaaaaaaa before, bbbbbbbbbbbb after",
        "version of torch: 2.12 before, 2.13 after",
        "version of openvino: unknown before, 2026 after",
    )
    assert find_changes([before], [before]).conditions == ()


def test_a_changed_description_is_said():
    (change,) = find_changes([result(entry("a", 1))], [result({**entry("a", 1), "description": "new"})]).runners
    assert change.sentences == ("was a, is new",)


def test_json():
    changes = find_changes([result(entry("a", 1, 2))], [result(entry("a", 4, 5))])
    figures = json.loads(json.dumps(changes.to_dict()))
    assert figures["runners"][0]["latency"]["ratio"] == pytest.approx(3)
    assert figures["runners"][0]["latency"]["exceeds_spread"] is True
    assert figures["conditions"] == []
