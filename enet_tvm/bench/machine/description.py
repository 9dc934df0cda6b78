"""Description of the machine that a measurement ran on, in words and figures."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, dataclass
from typing import Any

from enet_tvm.bench.machine.nvml import NvidiaGpu
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.machine import CoreChoice, default_threads


@dataclass(frozen=True)
class MachineDescription:
    """A machine, as its kernel describes it; what it does not say is empty or None.

    Attributes
    ----------
    processor : str
        Name of the processor.
    board : str
        Name of a single-board computer.
    processors : int
        Number of logical processors.
    usable : str
        Number of them that a process may keep busy, and why not all, in words; known of this machine alone.
    memory_bytes : int or None
        Size of main memory.
    gpus : tuple of str
        Names of GPUs.
    governor : str
        Frequency governor of the processors; several are joined by commas.
    system : str
        Name and version of the kernel.
    """

    processor: str
    board: str = ""
    processors: int = 0
    usable: str = ""
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    governor: str = ""
    system: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON takes it."""
        return {**asdict(self), "gpus": list(self.gpus)}


def describe_machine(
    files: SystemFiles | None = None, gpu: NvidiaGpu | None = None, cores: CoreChoice | None = None
) -> MachineDescription:
    """Return the description of a machine, by default this one, from its kernel's files and its GPU's driver.

    Parameters
    ----------
    files : SystemFiles, optional
        Files of another machine's kernel.
    gpu : NvidiaGpu, optional
        GPU that is measured.
    cores : CoreChoice, optional
        Processors of this machine that the threads are bound to, where the target names some.
    """
    usable = str(default_threads(cores=cores.wanted if cores else ())) if files is None else ""
    if cores is not None and str(cores) not in usable:
        usable = f"{usable}, {cores}"
    files = files or SystemFiles()
    cpuinfo = files.read("/proc/cpuinfo") or ""
    memory = re.search(r"^MemTotal:\s*(\d+) kB", files.read("/proc/meminfo") or "", re.MULTILINE)
    governors = {files.read(path) or "" for path in files.find("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
    return MachineDescription(
        processor=processor(files),
        board=files.read("/proc/device-tree/model") or "",
        processors=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
        usable=usable,
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        gpus=_gpus(files, gpu),
        governor=", ".join(sorted(governors - {""})),
        system=" ".join(filter(None, (files.read("/proc/sys/kernel/ostype"), files.read("/proc/sys/kernel/osrelease")))),
    )


def processor(files: SystemFiles | None = None) -> str:
    """Return the processor's name as the kernel gives it; by default this machine's."""
    text = (files or SystemFiles()).read("/proc/cpuinfo") or ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    parts = _arm_parts(text)
    if parts or files is not None:
        return parts
    return platform.processor() or platform.machine()


_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD40: "Neoverse-V1",
    0xD42: "Cortex-A78AE",
    0xD4F: "Neoverse-V2",
}
"""Numbers from ARM's technical reference manuals (register MIDR_EL1), of the cores that targets are shipped for."""


def _arm_parts(cpuinfo: str) -> str:
    numbers = sorted({int(text, 16) for text in re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)})
    return ", ".join(_ARM_PARTS.get(number, f"ARM part {number:#x}") for number in numbers)


def _gpus(files: SystemFiles, gpu: NvidiaGpu | None) -> tuple[str, ...]:
    names = []
    for path in files.find("/proc/driver/nvidia/gpus/*/information"):
        if found := re.search(r"^Model:\s*(.+)$", files.read(path) or "", re.MULTILINE):
            names.append(found[1].strip())
    if gpu is not None and gpu.name not in names:
        names.append(gpu.name)  # in a container the kernel's files may hide it
    # A Jetson's GPU is no PCI device; its clock is all that shows.
    names += [f"integrated ({path.split('/')[-1]})" for path in files.find("/sys/class/devfreq/*") if is_gpu(path)]
    return tuple(names)


def is_gpu(devfreq: str) -> bool:
    """Return whether a device in /sys/class/devfreq is a GPU (a Jetson's are called gpu, gp10b, gv11b, ga10b)."""
    return re.search(r"\.(gpu|g[pva]\d+b)$", devfreq) is not None
