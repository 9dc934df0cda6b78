from __future__ import annotations

import json

import pytest

from enet_tvm.bench.machine.conditions import Conditions
from enet_tvm.live.figures import History, machine_figures


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_and_the_latency_are_of_the_last_two_seconds() -> None:
    clock = Clock()
    history = History(clock)
    assert history.recent() == (0.0, None)
    for step in range(100):
        clock.now = 50.0 + 0.1 * step + 0.01
        history.add(0.02 if step < 50 else 0.04)
    rate, latency = history.recent()
    assert rate == pytest.approx(10)
    assert latency == pytest.approx(40)
    clock.now += 10
    assert history.recent() == (0.0, None)


def test_the_rate_is_right_from_the_beginning() -> None:
    clock = Clock()
    history = History(clock)
    for step in range(10):
        clock.now = 50.0 + 0.1 * step + 0.01
        history.add(0.02)
    assert history.recent()[0] == pytest.approx(10)


def test_the_plot_is_of_the_last_minute_with_gaps_where_no_frame_came() -> None:
    clock = Clock()
    history = History(clock)
    assert history.plot() == []
    for latency in (0.010, 0.020, 0.060):
        history.add(latency)
    clock.now = 51.6
    history.add(0.005)
    assert history.plot() == [(20.0, 60.0), None, None]  # the half second of now is not over
    clock.now = 52.0
    assert history.plot() == [(20.0, 60.0), None, None, (5.0, 5.0)]
    clock.now = 50.0 + 60.0
    assert len(history.plot()) == 120
    assert history.plot()[0] == (20.0, 60.0)
    clock.now += 0.5
    assert len(history.plot()) == 120
    assert history.plot()[0] is None
    for step in range(10_000):
        clock.now += 0.25
        history.add(0.001 * step)
    assert len(history.plot()) == 120
    assert None not in history.plot()


def test_the_hottest_place_and_the_mean_clock_are_told() -> None:
    found = machine_figures(
        Conditions(
            clocks={"cpu0": 1000.0, "cpu1": 2000.0},
            caps={"cpu0": 2400.0, "cpu1": 2400.0},
            temperatures={"cpu-thermal": 61.24, "gpu-thermal": 55.0},
            limits={"cpu-thermal": 85.0},
        )
    )
    assert found == {"celsius": 61.2, "celsius_of": "cpu-thermal", "celsius_limit": 85.0, "mhz": 1500, "mhz_cap": 2400}


def test_a_machine_that_tells_nothing_is_no_trouble() -> None:
    found = machine_figures(Conditions())
    assert set(found.values()) == {None}
    json.dumps(found, allow_nan=False)
