"""Energy, where a machine measures it: power rails and counters among the kernel's files, or a Jetson's tegrastats."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from enet_tvm.bench.system_files import SystemFiles

_WHOLE = ("VDD_IN", "POM_5V_IN", "SYS5V", "VIN_SYS_5V0", "psys")
"""What boards call their input: all that they take. From NVIDIA's module documentation and the RAPL driver of Linux."""

_EVERY = 0.05
"""Seconds between two readings of a power rail."""


@dataclass(frozen=True)
class Energy:
    """What was taken from one rail in a span of time.

    Attributes
    ----------
    meter : str
        Which rail, and what measured it.
    joules, seconds : float
        How much, and in what time.
    """

    meter: str
    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0


class Meter(ABC):
    """Adds up what one rail delivers, from its making or from `restart` on.

    Parameters
    ----------
    name : str
        Which rail, and what measures it.
    clock : callable
        Time in seconds.

    Attributes
    ----------
    seconds : float
        From the beginning to the last reading.
    joules : float
        What was taken in that time.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.joules = self.seconds = 0.0
        self._begun = self._clock()
        self._begin(self._begun)

    def sample(self) -> None:
        """Take a reading; the more often, the better."""
        now = self._clock()
        self.joules += self._since_last(now)
        self.seconds = now - self._begun

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Take the first reading."""

    @abstractmethod
    def _since_last(self, now: float) -> float:
        """Take a reading and return the joules since the one before."""


class CounterMeter(Meter):
    """A counter of energy.

    Parameters
    ----------
    name : str
        Of the meter.
    read : callable
        Returns microjoules so far, or None.
    wraps_at : int or None
        Microjoules at which the counter begins again.
    """

    def __init__(self, name: str, read: Callable[[], int | None], wraps_at: int | None = None) -> None:
        self._read, self._wraps_at = read, wraps_at
        super().__init__(name)

    def _begin(self, now: float) -> None:
        self._last = self._read()

    def _since_last(self, now: float) -> float:
        before, self._last = self._last, self._read()
        if self._last is None:
            self._last = before
        if self._last is None or before is None:
            return 0.0
        step = self._last - before
        return (step if step >= 0 else step + (self._wraps_at or -step)) / 1e6


class PowerMeter(Meter):
    """A reading of power, integrated by the trapezoidal rule.

    Parameters
    ----------
    name : str
        Of the meter.
    read : callable
        Returns watts now, or None.
    clock : callable
        Time in seconds.
    """

    def __init__(self, name: str, read: Callable[[], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        super().__init__(name, clock)

    def _begin(self, now: float) -> None:
        self._last = now, self._read()

    def _since_last(self, now: float) -> float:
        watts = self._read()
        then, before = self._last
        if watts is None and before is not None:
            return 0.0  # the next reading bridges it
        self._last = now, watts
        return (now - then) * (watts + before) / 2 if watts is not None and before is not None else 0.0


def find_meters(files: SystemFiles | None = None) -> list[Meter]:
    """Return the meters of a machine that can be read, that of the whole board first; by default of this machine."""
    files = files or SystemFiles()
    meters = [*_hwmon(files), *_ina3221_iio(files), *_rapl(files)]
    return sorted(meters, key=lambda meter: 0 if any(word in meter.name for word in _WHOLE) else 1)


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
        Path of ``tegrastats``.
    """

    def __init__(self, program: str) -> None:
        self._powers: dict[str, float] = {}
        self._read_one = threading.Event()
        self._process = subprocess.Popen(
            [program, "--interval", str(round(1e3 * _EVERY))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
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
def open_meters(files: SystemFiles | None = None) -> Iterator[list[Meter]]:
    """Yield the meters of this machine, from its kernel's files or else from tegrastats, the whole board's first."""
    meters = find_meters(files)
    program = None if meters else shutil.which("tegrastats")
    if program is None:
        yield meters
        return
    tool = TegraStats(program)
    try:
        yield tool.meters()
    finally:
        tool.close()


class EnergyRecorder:
    """Adds up all meters between `start` and `stop`, reading them by itself in between.

    Parameters
    ----------
    meters : sequence of Meter
        What to read.
    in_background : bool
        Whether a thread reads them every 50 ms; otherwise the caller does, by `sample`, because they are behind a
        connection that is in use.
    """

    def __init__(self, meters: Sequence[Meter], *, in_background: bool = True) -> None:
        self._meters = list(meters)
        self._in_background = in_background and bool(meters)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        for meter in self._meters:
            meter.restart()
        if self._in_background:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def sample(self) -> None:
        """Read all meters once."""
        for meter in self._meters:
            meter.sample()

    def stop(self) -> tuple[Energy, ...]:
        """Return what each meter has counted, in their order."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.sample()
        return tuple(Energy(meter.name, meter.joules, meter.seconds) for meter in self._meters)

    def _follow(self) -> None:
        while not self._ended.wait(_EVERY):
            self.sample()


def energy_figures(energies: Sequence[Energy], passes: int) -> list[dict[str, Any]]:
    """Return what every rail took for each of so many forward passes, as JSON takes it."""
    return [
        {"meter": energy.meter, "joules_per_pass": energy.joules / max(passes, 1), "watts": energy.watts} for energy in energies
    ]
