"""Constants from the times of microbenchmarks, and the file that keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.compiler.cuda import calibration as module
from enet_tvm.compiler.cuda.calibration import (
    Calibration,
    Constants,
    constants_of,
    figures_of,
    read_calibration,
)
from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target

TX1 = load_target("jetson-tx1")
CHIP = Chip.of(TX1)
MEASURED = Constants(
    ghz=0.9, gbps=19.5, l1_bytes=60, shared_bytes=110, l2_bytes=25, latency=90, memory_latency=500, launch_us=4.5
)


def calibration(**changes: object) -> Calibration:
    fields = {
        "target": "jetson-tx1",
        "arch": "sm_53",
        "gpu": "Tegra X1",
        "date": "2026-11-26T03:04:05+00:00",
        "enet_tvm": "0.1.0",
        "multiprocessors": 2,
        "constants": MEASURED,
    }
    return Calibration.model_validate({**fields, **changes})


@pytest.fixture(autouse=True)
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "search_roots", lambda: [tmp_path / "user", tmp_path / "shipped"])


positive = st.floats(0.1, 1000)


@given(
    st.integers(1, 200),
    st.builds(
        Constants,
        ghz=st.floats(0.2, 4),
        gbps=positive,
        l1_bytes=positive,
        shared_bytes=positive,
        l2_bytes=positive,
        latency=st.floats(10, 200),
        memory_latency=st.floats(250, 2000),
        launch_us=positive,
    ),
    st.floats(0, 60),
)
def test_constants_come_back(multiprocessors: int, constants: Constants, sums: float):
    """From the rates that a GPU with these constants has, whatever the sums between two loads take."""
    chip = replace(CHIP, multiprocessors=multiprocessors)
    clock = constants.ghz * 1e9
    rates = {
        "fma": clock * multiprocessors * chip.multiprocessor.lanes,
        "dram": constants.gbps * 1e9,
        "l1": constants.l1_bytes * clock * multiprocessors,
        "shared": constants.shared_bytes * clock * multiprocessors,
        "l2": constants.l2_bytes * clock * multiprocessors,
        "latency": clock / constants.latency,
        "step": clock / (constants.latency + sums),
        "memory_latency": clock / (constants.memory_latency + sums),
    }
    found = constants_of(rates, constants.launch_us, chip)
    assert found.model_dump() == pytest.approx(constants.model_dump(), rel=1e-9)


RATES = dict.fromkeys(("fma", "dram", "l1", "shared", "l2", "latency", "step", "memory_latency"), 1e9)


@given(st.sampled_from([*RATES, "launch"]), st.sampled_from([0.0, -1.0, float("inf"), float("nan")]))
def test_times_that_make_no_sense(name: str, value: float):
    rates = {**RATES, name: value} if name in RATES else RATES
    with pytest.raises(UserError, match=f"the time of the microbenchmark '{name}' makes no sense"):
        constants_of(rates, 1.0 if name in RATES else value, CHIP)


def test_memory_is_never_nearer_than_l1():
    assert constants_of({**RATES, "memory_latency": 2e9}, 1.0, CHIP).memory_latency >= constants_of(RATES, 1.0, CHIP).latency


def test_a_chip_with_what_was_measured():
    chip = calibration(multiprocessors=3).applied(CHIP)
    assert (chip.multiprocessors, chip.ghz, chip.gbps) == (3, 0.9, 19.5)
    one = chip.multiprocessor
    assert (one.l1_bytes, one.shared_bytes, one.l2_bytes) == (60, 110, 25)
    assert (one.latency, one.memory_latency, one.launch_us) == (90, 500, 4.5)
    assert replace(one, **{name: getattr(CHIP.multiprocessor, name) for name in vars(MEASURED) if hasattr(one, name)}) == (
        CHIP.multiprocessor
    )
    assert chip.arch == CHIP.arch


def test_written_and_read(tmp_path: Path):
    calibration().write(tmp_path / "here" / "it.toml")
    assert read_calibration(tmp_path / "here" / "it.toml") == calibration()


def test_the_users_comes_first(tmp_path: Path):
    assert figures_of(TX1) == module.Figures(CHIP, "as documents say")
    shipped, user = (tmp_path / root / "calibrations" / "jetson-tx1.toml" for root in ("shipped", "user"))
    calibration().write(shipped)
    assert figures_of(TX1).chip == calibration().applied(CHIP)
    assert figures_of(TX1).source == f"as measured on Tegra X1 on 2026-11-26 ({shipped})"
    calibration(gpu="another").write(user)
    assert figures_of(TX1).source == f"as measured on another on 2026-11-26 ({user})"
    assert figures_of(load_target("h100")).source == "as documents say"


def test_what_is_no_calibration(tmp_path: Path):
    path = tmp_path / "user" / "calibrations" / "jetson-tx1.toml"
    calibration(arch="sm_90").write(path)
    with pytest.raises(UserError, match=r"is of jetson-tx1 with sm_90, and jetson-tx1 has sm_53; make it again"):
        figures_of(TX1)
    path.write_text(path.read_text().replace("gbps = 19.5", "gbps = -1.0"))
    with pytest.raises(UserError, match=r"is not a calibration \(constants\.gbps: .*; make it again with 'enet-tvm device"):
        figures_of(TX1)
    path.write_text("[")
    with pytest.raises(UserError, match="make it again with 'enet-tvm device calibrate'"):
        figures_of(TX1)
