"""The meters of a machine: power rails and energy counters among the kernel's files, or a Jetson's tegrastats."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator

from enet_tvm.bench.machine.nvml import NvidiaGpu
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.measure.energy import READ_EVERY, CounterMeter, Meter, PowerMeter

_WHOLE = ("VDD_IN", "POM_5V_IN", "SYS5V", "VIN_SYS_5V0", "psys")
"""Names of the rails that feed a whole board, from NVIDIA's module documentation and the RAPL driver of Linux."""


def find_meters(files: SystemFiles | None = None) -> list[Meter]:
    """Return the meters of a machine that can be read, that of the whole board first; by default of this machine."""
    files = files or SystemFiles()
    meters = [*_hwmon(files), *_ina3221_iio(files), *_rapl(files)]
    return sorted(meters, key=lambda meter: 0 if any(word in meter.name for word in _WHOLE) else 1)


def gpu_meters(gpu: NvidiaGpu) -> list[Meter]:
    """Return the meter of a GPU: its energy counter, else its power, integrated; none where it reports neither."""
    name = f"{gpu.name} (NVML)"
    if gpu.microjoules() is not None:
        return [CounterMeter(name, gpu.microjoules)]
    return [PowerMeter(name, gpu.watts)] if gpu.watts() is not None else []


def _hwmon(files: SystemFiles) -> Iterator[Meter]:
    for chip in files.find("/sys/class/hwmon/hwmon*"):
        chip_name = files.read(f"{chip}/name") or chip.split("/")[-1]
        for path in files.find(f"{chip}/energy*_input"):
            if files.number(path) is not None:
                yield CounterMeter(_rail(files, path, chip_name), _number(files, path))
        powers = files.find(f"{chip}/power*_average") or files.find(f"{chip}/power*_input")
        for path in powers:
            if files.number(path) is not None:
                yield PowerMeter(_rail(files, path, chip_name), _scaled(files, 1e-6, path))
        if chip_name == "ina3221":
            yield from _ina3221(files, chip)


def _ina3221(files: SystemFiles, chip: str) -> Iterator[Meter]:
    """Find the rails of a Jetson's sensor: a voltage in mV and a current in mA for each."""
    for rail in (1, 2, 3):  # what is numbered from 4 are shunts and sums
        voltage, current = f"{chip}/in{rail}_input", f"{chip}/curr{rail}_input"
        if files.number(current) is not None and files.number(voltage) is not None:
            yield PowerMeter(_rail(files, voltage, "ina3221"), _scaled(files, 1e-6, current, voltage))


def _ina3221_iio(files: SystemFiles) -> Iterator[Meter]:
    """Find the rails of the same sensor as JetPack 4 shows it: milliwatts."""
    for path in files.find("/sys/bus/i2c/drivers/ina3221x/*/iio*/in_power*_input"):
        if files.number(path) is not None:
            rail = files.read(re.sub(r"in_power(\d+)_input$", r"rail_name_\1", path)) or path.split("/")[-1]
            yield PowerMeter(f"{rail} (ina3221x)", _scaled(files, 1e-3, path))


def _rapl(files: SystemFiles) -> Iterator[Meter]:
    # Domains within a package are part of it.
    for zone in files.find("/sys/class/powercap/intel-rapl:[0-9]*"):
        if zone.count(":") == 1 and files.number(f"{zone}/energy_uj") is not None:
            name = f"{files.read(f'{zone}/name') or zone.split('/')[-1]} (RAPL)"
            yield CounterMeter(name, _number(files, f"{zone}/energy_uj"), files.number(f"{zone}/max_energy_range_uj"))


def _rail(files: SystemFiles, path: str, chip: str) -> str:
    file = path.split("/")[-1]
    label = files.read(re.sub(r"_(input|average)$", "_label", path)) or file.rpartition("_")[0]
    return f"{label} ({chip})"


def _number(files: SystemFiles, path: str) -> Callable[[], int | None]:
    return lambda: files.number(path)


def _scaled(files: SystemFiles, factor: float, *paths: str) -> Callable[[], float | None]:
    def read() -> float | None:
        product = factor
        for path in paths:
            value = files.number(path)
            if value is None:
                return None
            product *= value
        return product

    return read


class TegraStats:
    """A Jetson's own tool, for boards whose sensors are not among the kernel's files; it runs until `close`.

    Parameters
    ----------
    program : str
        Path of the program ``tegrastats``.
    """

    def __init__(self, program: str) -> None:
        self._powers: dict[str, float] = {}
        self._read_one = threading.Event()
        self._process = subprocess.Popen(
            [program, "--interval", str(round(1e3 * READ_EVERY))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._powers = parse_tegrastats(line)
            self._read_one.set()
        self._read_one.set()  # it ended: nobody need wait

    def meters(self, timeout: float = 2.0) -> list[Meter]:
        """Return a meter for each rail of the first line; none when there is no line in `timeout` seconds."""
        self._read_one.wait(timeout)
        names = sorted(self._powers, key=lambda name: name not in _WHOLE)
        return [PowerMeter(f"{name} (tegrastats)", lambda name=name: self._powers.get(name)) for name in names]  # type: ignore[misc]

    def close(self) -> None:
        """End the tool."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=2)


def parse_tegrastats(line: str) -> dict[str, float]:
    """Return watts by rail from a line of tegrastats (``VDD_IN 4251mW/4250mW``, older: ``POM_5V_IN 2312/2312``)."""
    rails = re.findall(r"\b([A-Z][A-Z0-9_]*(?:_[A-Z0-9]+)+) (\d+)(?:mW)?/\d+(?:mW)?", line)
    return {name: int(milliwatts) / 1e3 for name, milliwatts in rails}


@contextlib.contextmanager
def open_meters(files: SystemFiles | None = None, gpu: NvidiaGpu | None = None) -> Iterator[list[Meter]]:
    """Yield the meters of this machine: the GPU's where one is given, then the kernel's files or else tegrastats.

    Among the meters of the kernel's files or tegrastats, that of the whole board is the first.
    """
    meters = [*(gpu_meters(gpu) if gpu is not None else ()), *find_meters(files)]
    program = None if meters else shutil.which("tegrastats")
    if program is None:
        yield meters
        return
    tool = TegraStats(program)
    try:
        yield tool.meters()
    finally:
        tool.close()
