from __future__ import annotations

from enet_tvm.bench.machine.system_files import SystemFiles


def test_a_tree_is_read_as_if_it_were_the_machine(tmp_path):
    folder = tmp_path / "sys/class/thermal"
    for number in (0, 1, 10):
        (folder / f"thermal_zone{number}").mkdir(parents=True)
        (folder / f"thermal_zone{number}/temp").write_text(f"{number}000\n")
    (folder / "model").write_bytes(b"Raspberry Pi 4\0")
    files = SystemFiles(tmp_path)
    found = files.find("/sys/class/thermal/thermal_zone*/temp")
    assert found == tuple(f"/sys/class/thermal/thermal_zone{number}/temp" for number in (0, 1, 10))
    assert [files.number(path) for path in found] == [0, 1000, 10000]
    assert files.read("/sys/class/thermal/model") == "Raspberry Pi 4"


def test_what_is_not_there_or_no_number_is_none(tmp_path):
    (tmp_path / "text").write_text("performance")
    files = SystemFiles(tmp_path)
    assert files.read("/missing") is files.number("/missing") is files.number("/text") is None
    assert files.read("/") is None
    assert files.find("/missing/*") == ()


def test_this_machine():
    assert "MemTotal" in (SystemFiles().read("/proc/meminfo") or "")
