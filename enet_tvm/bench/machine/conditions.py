"""The conditions under which a machine computes: clocks, temperatures, and whether it had to slow down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from enet_tvm.bench.machine.description import is_gpu
from enet_tvm.bench.machine.nvml import NvidiaGpu
from enet_tvm.bench.machine.system_files import SystemFiles

_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
_SLOWER = 0.9
"""Share of its clock at the start below which a processor has slowed down: governors move it by a few percent."""

_STOLEN = 0.02
"""Share of the processors' time that a hypervisor may give to others before a warning."""

_HELD_BACK = 0.02
"""Share of the time for which a GPU may be held back before a warning."""

_FLAGS = {0: "its voltage is too low", 1: "its clock is capped", 2: "it is throttled", 3: "it is at its soft temperature limit"}
"""Bits of a Raspberry Pi's ``get_throttled``, from the documentation of vcgencmd."""


@dataclass(frozen=True)
class Conditions:
    """The state of a machine at one moment; what it does not report is missing.

    Attributes
    ----------
    clocks : mapping of str to float
        Clock in MHz, by processor (``cpu0``) or GPU.
    caps : mapping of str to float
        Highest clock that the kernel allows just now, in MHz, by processor.
    temperatures : mapping of str to float
        Temperature in degrees Celsius, by thermal zone or GPU.
    limits : mapping of str to float
        Temperature in degrees Celsius from which the machine slows down, by thermal zone or GPU.
    throttled : mapping of str to int
        Number of times that processors were throttled, and state of cooling devices that hold them back, by counter.
    flags : int
        Bits of a Raspberry Pi's ``get_throttled``; 0 elsewhere.
    ticks, stolen : int
        Processor time since boot, in clock ticks, and the part of it that the hypervisor gave to others.
    gpu : str
        Name of the GPU that `reasons` and `held_back` describe; empty without one.
    reasons : tuple of str
        Clauses on what holds the GPU's clock down.
    held_back : mapping of str to (float, float)
        Seconds for which a cause has held the GPU back, and the GPU's time stamp of that reading in seconds, by cause.
    """

    clocks: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    throttled: Mapping[str, int] = field(default_factory=dict)
    flags: int = 0
    ticks: int = 0
    stolen: int = 0
    gpu: str = ""
    reasons: tuple[str, ...] = ()
    held_back: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a report shows: clocks and temperatures, and what holds a GPU's clock down."""
        reasons = {"gpu_reasons": list(self.reasons)} if self.gpu else {}
        return {"mhz": dict(self.clocks), "celsius": dict(self.temperatures), **reasons}


def read_conditions(files: SystemFiles | None = None, gpu: NvidiaGpu | None = None) -> Conditions:
    """Return what a machine says of itself now; by default this one.

    Parameters
    ----------
    files : SystemFiles, optional
        Kernel files of the machine.
    gpu : NvidiaGpu, optional
        GPU that computes, where NVML knows it.
    """
    files = files or SystemFiles()
    zones = {path: files.read(f"{path}/type") or path.split("/")[-1] for path in files.find("/sys/class/thermal/thermal_zone*")}
    ticks, stolen = _processor_time(files)
    found = Conditions(
        clocks={**_per_cpu(files, "scaling_cur_freq"), **_gpu_clocks(files)},
        caps=_per_cpu(files, "scaling_max_freq"),
        temperatures={
            name: celsius / 1000 for path, name in zones.items() if (celsius := files.number(f"{path}/temp")) is not None
        },
        limits={name: limit for path, name in zones.items() if (limit := _passive_limit(files, path)) is not None},
        throttled=_throttled(files),
        flags=_flags(files),
        ticks=ticks,
        stolen=stolen,
    )
    return found if gpu is None else _with_gpu(found, gpu)


def _with_gpu(machine: Conditions, gpu: NvidiaGpu) -> Conditions:
    def added(known: Mapping[str, float], value: float | None) -> Mapping[str, float]:
        return known if value is None else {**known, gpu.name: value}

    return replace(
        machine,
        clocks=added(machine.clocks, gpu.clock()),
        temperatures=added(machine.temperatures, gpu.celsius()),
        limits=added(machine.limits, gpu.celsius_limit()),
        gpu=gpu.name,
        reasons=gpu.reasons(),
        held_back=gpu.held_back(),
    )


def slowdowns(before: Conditions, after: Conditions) -> list[str]:
    """Return in sentences what slowed a machine down between two moments; empty when nothing shows."""
    found = []
    for name, word in (("clocks", "clock"), ("caps", "highest allowed clock")):
        if (fall := _largest_fall(getattr(before, name), getattr(after, name))) is not None:
            which, start, end = fall
            found.append(f"the {word} of {which} fell from {start:.0f} to {end:.0f} MHz")
    if counters := [name for name, count in after.throttled.items() if count > before.throttled.get(name, 0)]:
        found.append(f"the processor was throttled ({', '.join(counters)})")
    for name, limit in after.limits.items():
        if (celsius := after.temperatures.get(name, 0.0)) >= limit:
            found.append(
                f"{name} is at {celsius:.0f} °C, from {limit:.0f} °C {'it' if name == after.gpu else 'the board'} slows down"
            )
    found += [f"the board says that {text}" for bit, text in _FLAGS.items() if after.flags >> bit & 1]
    found += [f"{after.gpu} says that {reason}" for reason in after.reasons]
    found += _holds(before, after)
    passed = after.ticks - before.ticks
    if passed > 0 and (share := (after.stolen - before.stolen) / passed) > _STOLEN:
        found.append(f"the hypervisor gave {share:.0%} of the processors' time to others")
    return found


def _holds(before: Conditions, after: Conditions) -> list[str]:
    found = []
    for cause, (held, now) in after.held_back.items():
        held_then, then = before.held_back.get(cause, (held, now))
        if now > then and (share := (held - held_then) / (now - then)) > _HELD_BACK:
            found.append(f"{after.gpu} was held back {share:.0%} of the time by {cause}")
    return found


def _per_cpu(files: SystemFiles, name: str) -> dict[str, float]:
    values = {path.split("/")[-3]: files.number(path) for path in files.find(f"{_CPU}/cpufreq/{name}")}
    return {cpu: khz / 1e3 for cpu, khz in values.items() if khz is not None}


def _gpu_clocks(files: SystemFiles) -> dict[str, float]:
    values = {
        path.split("/")[-1]: files.number(f"{path}/cur_freq") for path in files.find("/sys/class/devfreq/*") if is_gpu(path)
    }
    return {gpu: hertz / 1e6 for gpu, hertz in values.items() if hertz is not None}


def _passive_limit(files: SystemFiles, zone: str) -> float | None:
    """Return the lowest temperature at which a zone slows the machine down, rather than switching it off."""
    kinds = [path for path in files.find(f"{zone}/trip_point_*_type") if files.read(path) == "passive"]
    limits = [files.number(path.removesuffix("type") + "temp") for path in kinds]
    # Zero and below stand for a trip point that is not used.
    return min((limit / 1000 for limit in limits if limit is not None and limit > 0), default=None)


def _throttled(files: SystemFiles) -> dict[str, int]:
    counts = {path.removeprefix("/sys/devices/system/cpu/"): files.number(path) for path in _throttle_counters(files)}
    for path in files.find("/sys/class/thermal/cooling_device*"):
        kind = (files.read(f"{path}/type") or "").lower()
        # Fans are cooling devices too, and idle injection is one that nothing else asks for.
        if "cpufreq" in kind or "devfreq" in kind or kind.startswith(("processor", "cpu")):
            counts[f"{path.split('/')[-1]} {kind}"] = files.number(f"{path}/cur_state")
    return {name: count for name, count in counts.items() if count is not None}


def _throttle_counters(files: SystemFiles) -> tuple[str, ...]:
    return files.find(f"{_CPU}/thermal_throttle/*_throttle_count")


def _flags(files: SystemFiles) -> int:
    for path in files.find("/sys/devices/platform/soc/soc:firmware/get_throttled"):
        try:
            return int(files.read(path) or "0", 16)
        except ValueError:
            return 0
    return 0


def _processor_time(files: SystemFiles) -> tuple[int, int]:
    line = (files.read("/proc/stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return 0, 0
    # user, nice, system, idle, iowait, irq, softirq, steal; guest time, which follows, is part of user.
    fields = [int(text) for text in line[1:9]]
    return sum(fields), fields[7]


def _largest_fall(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float, float] | None:
    falls = [(after[name] / start, name, start) for name, start in before.items() if name in after and start > 0]
    share, name, start = min(falls, default=(1.0, "", 0.0))
    return (name, start, after[name]) if share < _SLOWER else None
