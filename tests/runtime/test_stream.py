from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.stream import Stage, Stream

pytestmark = pytest.mark.timeout(60)


def threads_of_streams() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("enet-tvm-")]


def wait_for(condition: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_a_recorded_source_loses_nothing_and_keeps_its_order(items: list[int], depth: int, stages: int) -> None:
    work = [Stage(f"stage {number}", lambda value: value + 1) for number in range(stages)]
    with Stream(items, work, depth=depth) as stream:
        assert list(stream) == [item + stages for item in items]
        found = stream.statistics()
    assert (found.items, found.dropped) == (len(items), 0)
    assert list(found.stages) == ["source", *(stage.name for stage in work)]


def test_stages_work_side_by_side() -> None:
    meeting = threading.Barrier(2)

    def meet(value: int, apart: int) -> int:
        if value != apart:
            meeting.wait(5)  # passes only while the other stage is at work, on the item before or after
        return value

    stages = [Stage("a", lambda value: meet(value, apart=0)), Stage("b", lambda value: meet(value, apart=3))]
    with Stream(range(4), stages) as stream:
        assert list(stream) == [0, 1, 2, 3]


def test_waiting_items_are_bounded() -> None:
    given_out = itertools.count()
    release = threading.Event()

    def source() -> Iterator[int]:
        while True:
            yield next(given_out)

    def wait(value: int) -> int:
        release.wait(20)
        return value

    with Stream(source(), [Stage("slow", wait)], depth=2) as stream:
        time.sleep(0.2)
        # One in the stage, two that wait, and one that the source holds.
        assert next(given_out) <= 4
        release.set()
        assert next(stream) == 0


def test_a_live_source_drops_the_oldest_and_counts_them() -> None:
    taken, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        taken.wait(5)
        yield from range(1, 10)
        go_on.set()

    def hold(value: int) -> int:
        if value == 0:
            taken.set()
            go_on.wait(5)
        return value

    with Stream(source(), [Stage("hold", hold)], live=True, depth=1) as stream:
        assert list(stream) == [0, 9]
        assert stream.dropped == 8
        assert stream.statistics().dropped == 8


def test_a_slow_stage_of_a_live_source_takes_the_newest_that_is_ready() -> None:
    begun, held, all_passed = threading.Event(), threading.Event(), threading.Event()
    passed = threading.Semaphore(0)

    def source() -> Iterator[int]:
        begun.wait(5)
        yield 0
        held.wait(5)
        for value in range(1, 10):
            yield value
            passed.acquire(timeout=0.5)
        all_passed.set()

    def quick(value: int) -> int:
        if value:
            passed.release()
        return value

    def hold(value: int) -> int:
        if value == 0:
            held.set()
            all_passed.wait(10)
            while stream.dropped < 8 and not end.is_set():
                end.wait(0.01)
        return value

    end = threading.Event()
    timer = threading.Timer(8, end.set)
    timer.start()
    with Stream(source(), [Stage("quick", quick), Stage("hold", hold)], live=True, depth=1) as stream:
        begun.set()
        assert list(stream) == [0, 9]
    timer.cancel()


@pytest.mark.parametrize("where", ["source", "first", "second"])
def test_an_error_comes_after_the_items_before_it_and_ends_everything(where: str) -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            for value in itertools.count():
                if where == "source" and value == 3:
                    raise UserError("the camera was unplugged; plug it in")
                yield value
        finally:
            closed.set()

    def fail_at_3(name: str) -> Any:
        def work(value: int) -> int:
            if name == where and value == 3:
                raise UserError("the camera was unplugged; plug it in")
            return value

        return work

    stream: Stream[int] = Stream(source(), [Stage("first", fail_at_3("first")), Stage("second", fail_at_3("second"))])
    assert list(itertools.islice(stream, 3)) == [0, 1, 2]
    with pytest.raises(UserError, match="unplugged"):
        next(stream)
    assert closed.wait(5)
    wait_for(lambda: not threads_of_streams())


def test_leaving_early_ends_the_threads_and_closes_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with Stream(source(), [Stage("same", lambda value: value)]) as stream:
        assert next(stream) == 0
    assert closed.wait(5)
    wait_for(lambda: not threads_of_streams())
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_does_not_wait_for_a_live_source_that_says_nothing() -> None:
    silent = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        silent.wait(20)

    before = time.monotonic()
    with Stream(source(), [Stage("same", lambda value: value)], live=True) as stream:
        assert next(stream) == 1
    assert time.monotonic() - before < 2
    silent.set()


def test_statistics_tell_how_long_each_stage_works() -> None:
    with Stream(
        range(20), [Stage("quick", lambda value: value), Stage("slow", lambda value: time.sleep(0.01) or value)]
    ) as stream:
        assert len(list(stream)) == 20
        found = stream.statistics()
    assert 10 <= found.stages["slow"].p50 <= found.stages["slow"].p99
    assert found.stages["quick"].p50 < 5
    assert found.latency.p50 >= 10
    assert found.rate == pytest.approx(20 / found.seconds)
    assert found.seconds >= 0.2


def test_a_segmenters_stream_says_what_segment_says(tiny_artifact: Any) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, 40, 3), np.uint8) for height in (16, 30, 50)]
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        with segmenter.stream(frames) as stream:
            results = list(stream)
        for frame, result in zip(frames, results, strict=True):
            assert result.frame is frame
            np.testing.assert_array_equal(result.labels, segmenter.segment(frame))


def test_a_frame_that_is_no_picture_ends_a_segmenters_stream_in_a_sentence(tiny_artifact: Any) -> None:
    with (
        Segmenter.load(tiny_artifact.directory, threads=1) as segmenter,
        segmenter.stream([np.zeros((4, 4), np.uint8)]) as stream,
        pytest.raises(UserError, match="convert it"),
    ):
        next(stream)


@given(st.lists(st.integers(0, 3), max_size=25), st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_results_of_several_workers_stay_in_order(delays: list[int], count: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 2000)
        return item[0]

    with Stream(list(enumerate(delays)), [Stage("work", [work] * count), Stage("same", lambda value: value)]) as stream:
        assert list(stream) == list(range(len(delays)))
    wait_for(lambda: not threads_of_streams())


def test_several_workers_work_at_a_time() -> None:
    meeting = threading.Barrier(3)

    def meet(value: int) -> int:
        meeting.wait(5)
        return value

    with Stream(range(6), [Stage("meet", [meet] * 3)]) as stream:
        assert list(stream) == list(range(6))


@pytest.mark.parametrize("wrong", [0, 3, 7])
def test_an_error_of_one_worker_comes_after_the_items_before_it(wrong: int) -> None:
    def work(value: int) -> int:
        if value == wrong:
            raise UserError(f"no {wrong}")
        time.sleep(0.01)
        return value

    found = []
    with Stream(range(8), [Stage("work", [work] * 3)]) as stream, pytest.raises(UserError, match=f"no {wrong}"):
        found.extend(stream)
    assert found == list(range(wrong))
    wait_for(lambda: not threads_of_streams())


def test_leaving_early_ends_several_workers() -> None:
    with Stream(itertools.count(), [Stage("same", [lambda value: value] * 3)]) as stream:
        assert next(stream) == 0
    wait_for(lambda: not threads_of_streams())


def test_a_segmenters_stream_takes_frames_of_opencv(tiny_artifact: Any) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 40, 3), np.uint8)
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        with segmenter.stream([frame[:, :, ::-1]], channels="bgr") as stream:
            (result,) = stream
        np.testing.assert_array_equal(result.labels, segmenter.segment(frame))


@pytest.mark.parametrize("live", [False, True])
def test_a_segmenters_stream_on_two_threads(tiny_artifact: Any, live: bool) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8))
    with Segmenter.load(tiny_artifact.directory, threads=2) as segmenter:
        with segmenter.stream(frames, live=live, depth=9) as stream:
            results = list(stream)
        assert len(results) == 9
        for frame, result in zip(frames, results, strict=True):
            np.testing.assert_array_equal(result.labels, segmenter.segment(frame))
