from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.bench.measure.energy import CounterMeter, Energy, EnergyRecorder, PowerMeter, energy_figures


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 50)), min_size=1, max_size=20))
def test_power_is_integrated(steps):
    """By the trapezoidal rule, which is exact for what changes evenly."""
    now, watts, expected = 0.0, 3.0, 0.0
    meter = PowerMeter("m", lambda: watts, clock=lambda: now)
    for seconds, power in steps:
        expected += seconds * (watts + power) / 2
        now, watts = now + seconds, power
        meter.sample()
    assert meter.joules == pytest.approx(expected)
    meter.restart()
    assert meter.joules == 0


def test_a_reading_that_fails_is_bridged():
    readings, now = [2.0, None, 2.0], [0.0]
    meter = PowerMeter("m", lambda: readings[min(int(now[0]), 2)], clock=lambda: now[0])
    for second in (1.0, 2.0):
        now[0] = second
        meter.sample()
    assert meter.joules == pytest.approx(4.0)
    counts = iter([None, 10, None, 30])
    counter = CounterMeter("c", lambda: next(counts))
    for _ in range(3):
        counter.sample()
    assert counter.joules == pytest.approx(20e-6)


def test_background_readings_follow_a_changing_rail():
    watts = [1.0]
    recorder = EnergyRecorder([PowerMeter("m", lambda: watts[0])])
    recorder.start()
    time.sleep(0.2)
    watts[0] = 9.0
    time.sleep(0.2)
    (energy,) = recorder.stop()
    assert 2 < energy.watts < 8  # neither the first nor the last reading alone


def test_figures():
    (figures,) = energy_figures([Energy("VDD_IN", 12.0, 4.0)], passes=48)
    assert figures == {"meter": "VDD_IN", "joules_per_pass": 0.25, "watts": 3.0}
