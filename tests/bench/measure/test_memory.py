from __future__ import annotations

import subprocess
import sys

import pytest

from enet_tvm.bench.measure.memory import growth_since, mark_memory

MB = 1_000_000

GROWTH = """
from enet_tvm.bench.measure.memory import growth_since, mark_memory
big = bytearray(200_000_000)
del big
mark = mark_memory()
short = bytearray(50_000_000)
del short
kept = bytearray(20_000_000)
print(growth_since(mark))
"""


def test_the_peak_counts_and_what_was_before_does_not():
    """In a process of its own: what other tests left free could be used again without growth."""
    out = subprocess.run([sys.executable, "-c", GROWTH], check=True, capture_output=True, text=True).stdout.strip()
    if out == "None":
        pytest.skip("the kernel does not let the peak be reset")
    assert 48 * MB < int(out) < 53 * MB


def test_code_of_libraries_is_left_out(tmp_path):
    import mmap

    path = tmp_path / "library"
    path.write_bytes(bytes(64 * MB))
    mark = mark_memory()
    if mark is None:
        pytest.skip("the kernel does not let the peak be reset")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, len(mapped), 4096)) == 0
        assert growth_since(mark) < 16 * MB


def test_without_a_mark():
    assert growth_since(None) is None
