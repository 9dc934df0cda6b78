from __future__ import annotations

import ctypes
import os
import platform
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enet_tvm import machine
from enet_tvm.device_bundle.building import SOURCES, compile_c
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, cpu_features, cpu_quota, default_threads, tvm_num_threads, usable_cpus

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


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)


@pytest.fixture(scope="module")
def c_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The same in C (device_bundle/csrc/cpus.c), for boards without Python."""
    path = tmp_path_factory.mktemp("cpus") / "cpus.so"
    compile_c(architecture(), "-shared", "-fPIC", str(SOURCES / "cpus.c"), "-o", str(path))
    library = ctypes.CDLL(str(path))
    library.cpu_quota.restype = ctypes.c_double
    return library


@pytest.fixture(scope="module")
def c_quota(c_library: ctypes.CDLL) -> Callable[[Path], float | None]:
    return lambda root: c_library.cpu_quota(os.fsencode(root)) or None


class ThreadCount(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_int), ("threads", ctypes.c_int), ("processors", ctypes.c_int), ("why", ctypes.c_char * 96))


def c_threads(library: ctypes.CDLL, root: Path) -> str:
    count, text = ThreadCount(), ctypes.create_string_buffer(300)
    if library.default_threads(os.fsencode(root), None, ctypes.byref(count), text, 300):
        return f"error: {text.value.decode()}"
    library.describe_threads(ctypes.byref(count), text, 300)
    return text.value.decode()


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
)


def v1(group: str, quota: int | str, period: int | str = 100000, mount: str = "sys/fs/cgroup/cpu,cpuacct") -> dict[str, str]:
    return {f"{mount}/{group}/cpu.cfs_quota_us": f"{quota}\n", f"{mount}/{group}/cpu.cfs_period_us": f"{period}\n"}


QUOTAS = {
    "docker --cpus 2, second version, its own namespace": (
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "200000 100000\n"},
        2,
    ),
    "no limit": ({"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    "a unit in a slice: the outer one is tighter": (
        {
            "proc/self/cgroup": "0::/robot.slice/camera.service\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/robot.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/robot.slice/camera.service/cpu.max": "400000 100000\n",
        },
        1.5,
    ),
    "a unit in a slice: the inner one is tighter": (
        {
            "proc/self/cgroup": "0::/robot.slice/camera.service\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/robot.slice/cpu.max": "max 100000\n",
            "sys/fs/cgroup/robot.slice/camera.service/cpu.max": "25000 50000\n",
            "sys/fs/cgroup/robot.slice/other.service/cpu.max": "1000 50000\n",
        },
        0.5,
    ),
    "first version": (
        {
            "proc/self/cgroup": "5:cpuset:/\n4:cpuacct,cpu:/a/b\n0::/\n",
            "proc/self/mountinfo": V1 + V2,
            **v1("", -1),
            **v1("a", 300000),
            **v1("a/b", 800000, 200000),
        },
        3,
    ),
    "first version in a container: the mount begins at the group": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/c0ffee\n",
            "proc/self/mountinfo": V1.replace("0:29 /", "0:29 /docker/c0ffee"),
            **v1("", 200000),
        },
        2,
    ),
    "both versions": (
        {
            "proc/self/cgroup": "4:cpu:/a\n0::/b\n",
            "proc/self/mountinfo": V1 + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
            **v1("a", 700000),
            "sys/fs/cgroup/unified/b/cpu.max": "400000 100000\n",
        },
        4,
    ),
    "a path that means nothing here": (
        {
            "proc/self/cgroup": "0::/../../other\n",
            "proc/self/mountinfo": V2.replace("0:26 / ", "0:26 /../.. "),
            "sys/fs/cgroup/cpu.max": "100000 100000\n",
        },
        1,
    ),
    "a mount point with a blank": (
        {
            "proc/self/cgroup": "0::/a:b\n",
            "proc/self/mountinfo": V2.replace("/sys/fs/cgroup ", "/my\\040groups "),
            "my groups/a:b/cpu.max": "600000 100000\n",
        },
        6,
    ),
    "a group of another name's beginning": (
        {
            "proc/self/cgroup": "0::/abc\n",
            "proc/self/mountinfo": V2.replace("0:26 / ", "0:26 /ab "),
            "sys/fs/cgroup/c/cpu.max": "100000 100000\n",
        },
        None,
    ),
    "no control groups": ({"proc/self/cgroup": "", "proc/self/mountinfo": ""}, None),
    "no files": ({}, None),
    "numbers that are none": (
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "2e5 100000\n"},
        None,
    ),
    "no period": ({"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "200000 0\n"}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quota(tmp_path: Path, c_quota: Callable[[Path], float | None], name: str) -> None:
    files, expected = QUOTAS[name]
    root = tree(tmp_path, files)
    assert cpu_quota(root) == expected
    assert c_quota(root) == expected


names = st.sampled_from(["a", "b", "ab", "..", "c d", "e\\040f", ""])
paths = st.lists(names, max_size=3).map(lambda parts: "/" + "/".join(parts))
numbers = st.one_of(st.integers(-2, 400000).map(str), st.sampled_from(["max", "", "1e5", "9" * 16, " 7", "+1", "0x10"]))
junk = st.text("ab/:,0- \\4cpu", max_size=30)


@st.composite
def cgroup_line(draw: st.DrawFn) -> str:
    controllers = draw(st.sampled_from(["", "cpu", "cpu,cpuacct", "cpuset", "name=systemd"]))
    return draw(st.one_of(st.just(f"{draw(st.integers(0, 3))}:{controllers}:{draw(paths)}"), junk))


@st.composite
def mount_line(draw: st.DrawFn) -> str:
    kind = draw(
        st.sampled_from(
            ["cgroup2 cgroup2 rw", "cgroup cgroup rw,cpu,cpuacct", "cgroup cgroup rw,cpuset", "cgroup", "tmpfs x rw"]
        )
    )
    optional = draw(st.sampled_from(["", " shared:1", " shared:1 master:3"]))
    line = f"30 24 0:26 {draw(paths)} {draw(st.sampled_from(['/g', '/g/a', '/']))} rw{optional} - {kind}"
    return draw(st.one_of(st.just(line), junk))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(cgroup_line(), max_size=4),
    st.lists(mount_line(), max_size=4),
    st.dictionaries(st.sampled_from(["", "a", "b", "a/b", "ab", "c d", "a/a"]), st.tuples(numbers, numbers), max_size=6),
    st.booleans(),
)
def test_any_files_mean_the_same_in_python_and_in_c(
    c_quota: Callable[[Path], float | None],
    groups: list[str],
    mounts: list[str],
    quotas: dict[str, tuple[str, str]],
    trailing: bool,
) -> None:
    end = "\n" if trailing else ""
    with tempfile.TemporaryDirectory() as folder:
        files = {"proc/self/cgroup": "\n".join(groups) + end, "proc/self/mountinfo": "\n".join(mounts) + end}
        for group, (quota, period) in quotas.items():
            for mount in ("g", "g/a", "."):
                files[f"{mount}/{group}/cpu.max"] = f"{quota} {period}{end}"
                files |= v1(group, quota, period, mount)
        found = cpu_quota(tree(Path(folder), files))
        assert found is None or found > 0
        assert c_quota(Path(folder)) == found


def quota_tree(root: Path, quota: int) -> Path:
    return tree(root, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})


@pytest.mark.parametrize(
    ("quota", "threads", "words"),
    [
        (200000, 2, "2 of 64 processors: the CPU quota of 2 of its control group"),
        (290000, 2, "2 of 64 processors: the CPU quota of 2.9 of its control group"),
        (50000, 1, "1 of 64 processors: the CPU quota of 0.5 of its control group"),
        (6400000, 64, "64 processors"),
        (900000000, 64, "64 processors"),
    ],
)
def test_threads_are_those_that_the_quota_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, threads: int, words: str
) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: list(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    found = default_threads(quota_tree(tmp_path, quota))
    assert found.threads == threads
    assert str(found) == words


def test_threads_are_those_of_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: [3, 5])
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert str(default_threads(tmp_path)) == "2 of 64 processors: those that it may run on"
    assert str(default_threads(quota_tree(tmp_path, 100000))) == "1 of 64 processors: the CPU quota of 1 of its control group"


def test_a_wish_comes_before_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: list(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    root = quota_tree(tmp_path, 200000)
    for wish, words in (
        ("1", "1 of 8 processors: TVM_NUM_THREADS"),
        ("4", "4 of 8 processors: TVM_NUM_THREADS"),
        ("900", "8 processors"),
    ):
        monkeypatch.setenv("TVM_NUM_THREADS", wish)
        assert str(default_threads(root)) == words


@pytest.mark.parametrize("wish", ["", "0", "-1", "two", "2.0", "1e3", " 2", "1025", "99999999999999999999", "٢"])
def test_a_wish_that_is_no_number_is_refused(c_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", wish)
    with pytest.raises(UserError, match=re.escape(f"TVM_NUM_THREADS is '{wish}' and must be a number from 1 to 1024")):
        tvm_num_threads()
    with pytest.raises(UserError, match="TVM_NUM_THREADS"):
        default_threads()
    assert c_threads(c_library, Path("/")).startswith(f"error: TVM_NUM_THREADS is '{wish}' and must be a number from 1 to 1024")


@pytest.mark.parametrize("quota", [20000, 100000, 150000, 200000, 10000000])
@pytest.mark.parametrize("wish", [None, "1", "2", "1000"])
def test_threads_are_the_same_in_c(
    tmp_path: Path, c_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, quota: int, wish: str | None
) -> None:
    if wish is not None:
        monkeypatch.setenv("TVM_NUM_THREADS", wish)
    root = quota_tree(tmp_path, quota)
    before = os.sched_getaffinity(0)
    try:
        for cpus in (before, {min(before)}):
            os.sched_setaffinity(0, cpus)
            assert c_threads(c_library, root) == str(default_threads(root))
    finally:
        os.sched_setaffinity(0, before)


def test_without_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert usable_cpus() == list(range(10))
    assert default_threads("/nowhere").threads == 10
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == [0]
