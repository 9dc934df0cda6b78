from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.machine import usable_cpus
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.load import WINDOW, ProcessorWatch, fitting_threads

CPUS = usable_cpus()


class Kernel:
    """Files like the kernel's, of four processors, two threads and the time that passes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.idle, self.busy, self.own = [1000.0] * 4, [1000.0] * 4, [0.5, 0.5]
        self.write()

    def write(self) -> None:
        lines = ["cpu  0 0 0 0 0 0 0 0 0 0"]
        for number, (idle, busy) in enumerate(zip(self.idle, self.busy, strict=True)):
            lines.append(f"cpu{number} {busy * 50:.0f} 0 {busy * 50:.0f} {idle * 60:.0f} {idle * 40:.0f} 0 0 0 0 0")
        (self.root / "stat").write_text("\n".join([*lines, "intr 0 0"]) + "\n")
        for thread, seconds in zip((7, 8), self.own, strict=True):
            folder = self.root / f"self/task/{thread}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "schedstat").write_text(f"{seconds * 1e9:.0f} 12345 678\n")

    def pass_time(self, idle: list[float], own: list[float]) -> None:
        """Let a second pass, idle and in the threads for such parts."""
        self.idle = [old + part for old, part in zip(self.idle, idle, strict=True)]
        self.busy = [old + 1 - part for old, part in zip(self.busy, idle, strict=True)]
        self.own = [old + part for old, part in zip(self.own, own, strict=True)]
        self.write()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.mark.parametrize(
    ("idle", "own", "free"),
    [
        ([1, 1, 1, 1], [0, 0], 2.0),  # nobody computes: both of its processors
        ([0, 1, 0, 1], [1, 0.2], 2.0),  # processor 3 is not its own
        ([0, 0, 0, 0], [0.5, 0.5], 1.0),  # two loops beside it
        ([0, 0, 1, 1], [0, 0], 0.0),  # others' idle processors do not count
        ([0.4, 0, 0, 0], [0.6, 0.3], 1.3),
    ],
)
def test_what_is_idle_and_what_the_threads_had_is_available(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, idle: list[float], own: list[float], free: float
) -> None:
    start = 1000.0
    with monkeypatch.context() as patch:
        patch.setattr("enet_tvm.runtime.load.time.monotonic", lambda: start)
        watch = ProcessorWatch([0, 1], [7, 8], kernel.root)
    assert watch.available(start + 0.9 * WINDOW) is None
    kernel.pass_time(idle, own)
    assert watch.available(start + 1) == pytest.approx(free, abs=0.02)
    assert watch.available(start + 1 + 0.9 * WINDOW) is None
    kernel.pass_time([1, 1, 1, 1], [0, 0])
    assert watch.available(start + 2) == pytest.approx(2, abs=0.02)


def test_a_kernel_that_does_not_tell(kernel: Kernel) -> None:
    start = time.monotonic() + 1
    watch = ProcessorWatch([0, 1], [7, 8], kernel.root)
    assert watch.available(start) is None, "its counters stand still"
    (kernel.root / "self/task/8/schedstat").unlink()
    assert watch.available(start + 1) is None
    (kernel.root / "stat").write_text("cpu0 what\n")
    assert watch.available(start + 2) is None
    assert ProcessorWatch([0], [7], kernel.root / "absent").available(start) is None


@given(st.floats(0, 64), st.integers(1, 64), st.data())
def test_threads_fit(available: float, most: int, data: st.DataObject) -> None:
    now = data.draw(st.integers(1, most))
    wanted = fitting_threads(available, most, now)
    assert 1 <= wanted <= most
    assert wanted == 1 or wanted <= available + 0.5, "each has half a processor at least"
    assert wanted == most or wanted > available - 1, "no processor is left free"
    assert fitting_threads(available, most, wanted) == wanted, "it rests"


def test_threads_rest_at_the_border() -> None:
    assert [fitting_threads(available, 2, 2) for available in (1.49, 1.5, 1.6)] == [1, 2, 2]
    assert [fitting_threads(available, 2, 1) for available in (1.5, 1.6, 1.7)] == [1, 1, 2]


@pytest.mark.skipif(len(CPUS) < 2, reason="has one processor")
def test_fewer_threads_beside_other_work(tiny_artifact: Any) -> None:
    """Two loops on each processor leave a third of each: no place for all threads. The labels stay the same."""
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
    with (
        Segmenter.load(tiny_artifact.directory, len(CPUS)) as segmenter,
        Segmenter.load(tiny_artifact.directory, len(CPUS), adaptive=False) as fixed,
    ):
        expected = fixed.forward(x)
        loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * len(CPUS))]
        try:
            end = time.monotonic() + 10
            while segmenter.threads_now == len(CPUS):
                assert time.monotonic() < end, "it uses them all"
                np.testing.assert_array_equal(segmenter.forward(x), expected)
                fixed.forward(x)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        assert segmenter.threads == fixed.threads_now == len(CPUS)
        np.testing.assert_array_equal(segmenter.forward(x), expected)
