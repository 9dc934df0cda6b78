from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.bench.measure.latency import Latency, alternate
from enet_tvm.bench.runners.base import PassTimes


class Clock:
    """Time that passes only where a function or a pause says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def function(self, name: str, *seconds: float):
        """Takes the given durations in turn, then the last one for ever."""
        remaining = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.advance(remaining.pop(0) if len(remaining) > 1 else remaining[0])

        return call


def run(clock: Clock, functions, **options) -> dict[str, Latency]:
    return alternate(functions, clock=clock, sleep=clock.advance, **options)


def test_medians_are_of_each_function():
    clock = Clock()
    results = run(clock, {"slow": clock.function("slow", 0.2), "fast": clock.function("fast", 0.1)}, min_rounds=5, seconds=0)
    assert results["slow"].median == pytest.approx(0.2)
    assert results["fast"].median == pytest.approx(0.1)
    assert list(results) == ["slow", "fast"]


def test_warm_up_is_left_out():
    clock = Clock()
    slow_start = clock.function("f", 5.0, 4.0, 3.0, 2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.1)
    latency = run(clock, {"f": slow_start}, min_rounds=30, seconds=60)["f"]
    assert latency.seconds == pytest.approx([0.1] * len(latency.seconds))


def test_warm_up_ends_even_if_it_never_settles():
    clock = Clock()
    ever_faster = clock.function("f", *(1.0 * 0.99**i for i in range(200)))
    assert len(run(clock, {"f": ever_faster}, min_rounds=12, seconds=10, pause=0.0)["f"].seconds) == 12
    assert len(clock.calls) == pytest.approx(12 + 6, abs=1)


def test_rounds_take_turns_and_rotate():
    clock = Clock()
    run(clock, {name: clock.function(name, 0.1) for name in "abc"}, min_rounds=4, seconds=0)
    measured = clock.calls[-12:]
    rounds = ["".join(measured[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["abc", "bca", "cab", "abc"]


def test_goes_on_for_as_long_as_was_asked():
    clock = Clock()
    latency = run(clock, {"f": clock.function("f", 0.1)}, min_rounds=3, seconds=5, pause=0.0)["f"]
    assert len(latency.seconds) == pytest.approx(50, abs=1)


def test_pauses_are_not_counted():
    clock = Clock()
    assert run(clock, {"f": clock.function("f", 0.1)}, min_rounds=3, seconds=0, pause=7.0)["f"].median == pytest.approx(0.1)


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=50))
def test_figures_are_in_order(seconds: list[float]):
    latency = Latency(tuple(seconds))
    figures = latency.to_dict()
    assert min(seconds) * 999 <= figures["p10_ms"] <= figures["median_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
    assert figures["calls"] == len(seconds)


def test_restless_times_are_called_so():
    assert Latency((1.0,) * 10).steady
    assert not Latency((1.0, 2.0) * 10).steady


@pytest.mark.parametrize(("functions", "rounds"), [({}, 3), ({"f": lambda: None}, 0)])
def test_nothing_to_time(functions, rounds):
    with pytest.raises(ValueError, match="function and a round"):
        alternate(functions, min_rounds=rounds)


def test_a_device_that_times_itself_is_taken_at_its_word():
    clock = Clock()

    def on_device() -> PassTimes:
        clock.advance(0.5)  # of which most is the way there and back
        return PassTimes(device=0.1, transfer=0.3)

    results = run(clock, {"far": on_device, "here": clock.function("here", 0.2)}, min_rounds=5, seconds=0)
    assert results["far"].median == pytest.approx(0.1)
    assert results["far"].transfer == pytest.approx(0.3)
    assert results["far"].to_dict()["transfer_ms"] == pytest.approx(300)
    assert results["here"].transfers == ()
    assert results["here"].transfer == 0


def test_spread_is_that_of_the_percentiles():
    latency = Latency(tuple(float(n) for n in range(101)))
    assert latency.spread == pytest.approx((90 - 10) / 50)
    assert latency.to_dict()["spread"] == pytest.approx(1.6)
