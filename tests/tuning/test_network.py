"""What a place says of a network; that it runs there is tested by whole sessions."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from enet_tvm.evaluation import parity
from enet_tvm.tuning import network as network_module
from enet_tvm.tuning.network import Here


def test_what_a_dtype_costs_is_not_for_tuning_to_judge(monkeypatch: pytest.MonkeyPatch, tmp_path):
    agreements = {"tuned": 0.95, "untuned": 0.9505, "broken": 0.90}

    @contextmanager
    def loaded(place, artifact):
        yield SimpleNamespace(name=artifact.name, manifest=network_module.read_manifest(artifact))

    def verified(segmenter, reference, inputs):
        agreement = agreements[segmenter.name]
        return SimpleNamespace(pictures=1, label_agreement=agreement, max_abs_logit_diff=1.0, passes=lambda least: False)

    monkeypatch.setattr(Here, "segmenter", loaded)
    monkeypatch.setattr(network_module, "open_inputs", lambda *_, **__: SimpleNamespace(description="streets"))
    monkeypatch.setattr(parity, "load_reference", lambda *_: None)
    monkeypatch.setattr(parity, "verify", verified)
    for dtype, name, agrees in (("int8", "tuned", True), ("int8", "broken", False), ("float32", "tuned", False)):
        monkeypatch.setattr(network_module, "read_manifest", lambda path, dtype=dtype: SimpleNamespace(dtype=dtype))
        assert Here(1).parity(Path(name), Path("untuned"), tmp_path)[1] is agrees
