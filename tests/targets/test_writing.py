from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.targets import known_targets, load_target, make_target
from enet_tvm.targets.writing import new_target, to_toml

BASE = {"description": "a board", "triple": "aarch64-linux-gnu", "mcpu": "cortex-a55"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_options_alone(here: Path):
    path = new_target("mine", {**BASE, "cores": 8, "mattr": ["+dotprod"], "size": "480x320"})
    assert path == Path("targets/mine.toml")
    assert known_targets()["mine"] == here / path
    target = load_target("mine")
    assert (target.cores, target.mattr, str(target.size), target.rpc_key) == (8, ("+dotprod",), "480x320", "mine")
    assert set(tomllib.loads(path.read_text())) == {*BASE, "cores", "mattr", "size"}


@pytest.mark.parametrize("like", ["native", *known_targets()])
def test_a_copy_is_the_same_but_for_its_name(here: Path, like: str):
    new_target("copy", {}, like)
    assert load_target("copy") == load_target(like).model_copy(update={"name": "copy", "rpc_key": "copy", "aliases": ()})


def test_cores_of_another_number_are_no_longer_those_of_the_list(here: Path):
    new_target("two", {"core_list": [6, 7]}, "rk3588")
    assert (load_target("two").cores, load_target("two").core_list) == (2, (6, 7))
    assert load_target("two").roofline is None
    new_target("any", {"cores": 8}, "rk3588")
    assert (load_target("any").cores, load_target("any").core_list) == (8, ())


def test_an_rpc_key_of_its_own_is_kept(here: Path):
    new_target("first", {**BASE, "rpc_key": "farm"})
    new_target("second", {}, "first")
    assert load_target("second").rpc_key == "farm"


@pytest.mark.parametrize(("changes", "kept"), [({"memory": 1024}, True), ({"cores": 4}, True), ({"cores": 2}, False)])
def test_roofline_goes_with_the_processor_and_its_cores(here: Path, changes: dict[str, object], kept: bool):
    new_target("copy", changes, "rpi3")
    assert (load_target("copy").roofline is not None) is kept


def test_nothing_is_overwritten(here: Path):
    path = new_target("mine", BASE)
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists; choose another name, or edit it"):
        new_target("mine", {**BASE, "cores": 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("native", BASE, "choose another name"),
        ("a/b", BASE, "name is 'a/b'"),
        ("a", {**BASE, "mcpu": "abacus"}, "no processor 'abacus'"),
        ("a", {**BASE, "cores": 0}, "cores is 0"),
        ("a", {"mcpu": "cortex-a55"}, "is missing"),
    ],
)
def test_what_does_not_serve_leaves_nothing(here: Path, name: str, changes: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        new_target(name, changes)
    assert list(here.iterdir()) == []


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@settings(deadline=None)
@given(
    description=TEXT,
    notes=st.lists(TEXT, max_size=3),
    gflops=st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**6),
    memory=st.none() | st.integers(1, 10**9),
)
def test_what_is_written_is_read(description: str, notes: list[str], gflops: float, memory: int | None):
    roofline = {"gflops": gflops, "source": description}
    content = {**BASE, "name": "a", "description": description, "notes": notes, "memory": memory, "roofline": roofline}
    target = make_target(content, "a")
    assert make_target({"name": "a", **tomllib.loads(to_toml(target))}, "a") == target


GTX_1060 = {"arch": "sm_61", "ptx": "6.5", "multiprocessors": 10}


@pytest.mark.parametrize(("changes", "kept"), [({"cores": 2}, True), ({"gpu": GTX_1060}, False)])
def test_roofline_of_a_gpu_goes_with_the_gpu(here: Path, changes: dict[str, object], kept: bool):
    new_target("copy", changes, "gtx-1080")
    target = load_target("copy")
    assert target.gpu is not None
    assert target.gpu.arch == "sm_61"
    assert (target.roofline is not None) is kept
