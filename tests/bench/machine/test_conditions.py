from __future__ import annotations

from pathlib import Path

import pytest

from enet_tvm.bench.machine.conditions import read_conditions, slowdowns
from enet_tvm.bench.machine.system_files import SystemFiles

CPU = "sys/devices/system/cpu"


class Board:
    """A tree of kernel files that a test changes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def say(self, path: str, content: object) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(f"{content}\n")

    def now(self):
        return read_conditions(SystemFiles(self.root))


@pytest.fixture
def board(tmp_path):
    board = Board(tmp_path)
    for cpu in (0, 1):
        board.say(f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq", 1_500_000)
        board.say(f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq", 1_500_000)
    board.say("sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    board.say("sys/class/thermal/thermal_zone0/temp", 52_300)
    board.say("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical")
    board.say("sys/class/thermal/thermal_zone0/trip_point_0_temp", 110_000)
    board.say("sys/class/thermal/thermal_zone0/trip_point_1_type", "passive")
    board.say("sys/class/thermal/thermal_zone0/trip_point_1_temp", 80_000)
    board.say("sys/class/thermal/cooling_device0/type", "thermal-cpufreq-0")
    board.say("sys/class/thermal/cooling_device0/cur_state", 0)
    board.say("sys/class/thermal/cooling_device1/type", "pwm-fan")
    board.say("sys/class/thermal/cooling_device1/cur_state", 0)
    board.say("sys/class/devfreq/57000000.gpu/cur_freq", 998_400_000)
    board.say("proc/stat", "cpu  100 0 50 800 0 0 0 50 0 0\ncpu0 50 0 25 400 0 0 0 25 0 0")
    return board


def test_what_is_read(board):
    now = board.now()
    assert now.clocks == {"cpu0": 1500, "cpu1": 1500, "57000000.gpu": 998.4}
    assert now.temperatures == {"cpu-thermal": 52.3}
    assert now.limits == {"cpu-thermal": 80}
    assert (now.ticks, now.stolen) == (1000, 50)
    assert now.to_dict() == {"mhz": dict(now.clocks), "celsius": {"cpu-thermal": 52.3}}


def test_a_machine_that_says_nothing(tmp_path):
    nothing = read_conditions(SystemFiles(tmp_path))
    assert slowdowns(nothing, nothing) == []
    assert nothing.to_dict() == {"mhz": {}, "celsius": {}}


def test_nothing_happened(board):
    before = board.now()
    board.say(f"{CPU}/cpu0/cpufreq/scaling_cur_freq", 1_450_000)  # within what governors do
    board.say("sys/class/thermal/thermal_zone0/temp", 71_000)
    board.say("sys/class/thermal/cooling_device1/cur_state", 3)  # a fan is no throttling
    assert slowdowns(before, board.now()) == []


def test_from_idle_to_busy_is_no_slowdown(board):
    board.say(f"{CPU}/cpu0/cpufreq/scaling_cur_freq", 600_000)
    before = board.now()
    board.say(f"{CPU}/cpu0/cpufreq/scaling_cur_freq", 1_500_000)
    assert slowdowns(before, board.now()) == []


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        (f"{CPU}/cpu1/cpufreq/scaling_cur_freq", 1_000_000, "the clock of cpu1 fell from 1500 to 1000 MHz"),
        (f"{CPU}/cpu0/cpufreq/scaling_max_freq", 1_200_000, "the highest allowed clock of cpu0 fell from 1500 to 1200 MHz"),
        ("sys/class/devfreq/57000000.gpu/cur_freq", 76_800_000, "the clock of 57000000.gpu fell from 998 to 77 MHz"),
        ("sys/class/thermal/thermal_zone0/temp", 81_000, "cpu-thermal is at 81 °C, from 80 °C the board slows down"),
        ("sys/class/thermal/cooling_device0/cur_state", 2, "throttled (cooling_device0 thermal-cpufreq-0)"),
        (f"{CPU}/cpu0/thermal_throttle/core_throttle_count", 7, "throttled (cpu0/thermal_throttle/core_throttle_count)"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005", "its voltage is too low"),
        ("proc/stat", "cpu  150 0 50 850 0 0 0 150 0 0", "the hypervisor gave 50% of the processors' time to others"),
    ],
)
def test_slowdowns(board, path, content, sentence):
    before = board.now()
    board.say(path, content)
    assert any(sentence in found for found in slowdowns(before, board.now()))


def test_a_raspberry_pi_says_all_that_is_wrong(board):
    board.say("sys/devices/platform/soc/soc:firmware/get_throttled", "5")
    assert [text.removeprefix("the board says that ") for text in slowdowns(board.now(), board.now())] == [
        "its voltage is too low",
        "it is throttled",
    ]
