from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from enet_tvm.bench.measure import roofline as module
from enet_tvm.bench.measure.roofline import MEASURED, PROMISED, exact_float32, gpu_roofline, measure_roofline, promised_roofline
from enet_tvm.targets import load_target


def test_roofline_is_measured_and_leaves_the_thread_count():
    before = torch.get_num_threads()
    roofline = measure_roofline(threads=1, side=128, megabytes=1)
    assert np.isfinite([roofline.flops_per_second, roofline.bytes_per_second]).all()
    assert roofline.flops_per_second > 1e8
    assert torch.get_num_threads() == before


def gpu(flops: float | None, size: float | None) -> SimpleNamespace:
    return SimpleNamespace(peak_flops=lambda: flops, peak_bytes=lambda: size)


def test_of_a_gpu_its_clocks_come_before_what_the_target_promises(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    promised = load_target("h100").roofline
    found, source = gpu_roofline(gpu(67e12, 3.35e12), promised)
    assert (found.flops_per_second, found.bytes_per_second) == (67e12, 3.35e12)
    assert source == "the GPU's cores and highest clocks"
    assert gpu_roofline(gpu(67e12, None), promised)[0].bytes_per_second == math.inf
    for silent in (gpu(None, None), None):
        found, source = gpu_roofline(silent, promised)
        assert (found.flops_per_second, found.bytes_per_second) == (pytest.approx(51.218e12), pytest.approx(2.039e12))
        assert source == PROMISED
    assert gpu_roofline(None, None)[0] is None


def test_of_a_gpu_what_is_measured_comes_first(monkeypatch):
    """The GPU being a processor: what is measured, and how long for, is the same."""
    measure = module.measure_on
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []

    def on_processor(device, wait, side, megabytes):
        asked.append((device, wait))
        return measure("cpu", lambda: None, side=64, megabytes=1)

    monkeypatch.setattr(module, "measure_on", on_processor)
    found, source = gpu_roofline(gpu(1.0, 1.0), None)
    assert source == MEASURED
    assert found.flops_per_second > 1e6
    assert asked == [("cuda", torch.cuda.synchronize)]


def test_float32_is_not_rounded_to_tf32_and_what_was_chosen_comes_back():
    torch.backends.cudnn.allow_tf32 = True
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_a_target_may_promise_nothing():
    assert promised_roofline(None) is None
    assert promised_roofline(load_target("rpi4").roofline).flops_per_second > 1e9
