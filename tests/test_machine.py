from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from enet_tvm.machine import architecture, cpu_features, usable_cpus

X86 = """processor\t: 0
flags\t\t: fpu sse2 avx2 avx512f
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: fpu sse2 avx2 avx512f
"""
BIG_LITTLE = """processor\t: 0
Features\t: fp asimd evtstrm

processor\t: 4
Features\t: fp asimd asimddp
"""


@pytest.mark.parametrize(
    ("text", "features"), [(X86, {"fpu", "sse2", "avx2", "avx512f"}), (BIG_LITTLE, {"fp", "asimd"}), ("processor: 0\n", set())]
)
def test_features_are_those_of_every_processor(tmp_path: Path, text: str, features: set[str]):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_features(tmp_path / "cpuinfo") == features


def test_no_cpuinfo_means_no_features(tmp_path: Path):
    assert cpu_features(tmp_path / "absent") == frozenset()


def test_this_machine():
    assert architecture() == platform.machine().lower()
    assert len(cpu_features()) > 3
    assert set(usable_cpus()) == os.sched_getaffinity(0)
