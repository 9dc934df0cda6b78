"""The files by which a library tells the processor it is on, for a board with one core of a target's processor.

Under emulation `/proc` and `/sys` are this machine's: XNNPACK and ONNX Runtime, which read them, end with a segmentation fault
on what an x86 processor says there, and would choose their kernels for another processor than the one that is counted.
"""

from __future__ import annotations

from pathlib import Path

PARTS = {
    "cortex-a53": (0xD03, 0, 4),
    "cortex-a55": (0xD05, 2, 0),
    "cortex-a57": (0xD07, 1, 1),
    "cortex-a72": (0xD08, 0, 3),
    "cortex-a76": (0xD0B, 4, 1),
    "cortex-a78ae": (0xD42, 0, 1),
    "neoverse-n1": (0xD0C, 3, 1),
    "neoverse-v1": (0xD40, 1, 1),
    "neoverse-v2": (0xD4F, 0, 1),
}
"""Part, variant and revision in a processor's own register (MIDR_EL1); Arm's reference manual of each has them."""
_ARM = 0x41
_ANY = "cortex-a53"
"""What a processor is called that is not in `PARTS`: all others run what is made for it."""


def board_root(folder: Path, device: Path, processor: str) -> Path:
    """Return a root file system for qemu: that of the emulated device, and the files of one core of a processor.

    Parameters
    ----------
    folder : Path
        Folder to make it in; what is there already is kept.
    device : Path
        Root file system of the emulated device, which is linked to.
    processor : str
        What LLVM calls the processor, such as ``cortex-a72``.
    """
    part, variant, revision = PARTS.get(processor, PARTS[_ANY])
    register = _ARM << 24 | variant << 20 | 0xF << 16 | part << 4 | revision
    folder.mkdir(parents=True, exist_ok=True)
    for entry in device.iterdir():
        if not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry)
    description = {
        "processor": 0,
        "CPU implementer": f"{_ARM:#x}",
        "CPU architecture": 8,
        "CPU variant": f"{variant:#x}",
        "CPU part": f"{part:#x}",
        "CPU revision": revision,
    }
    cores = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": "".join(f"{name}\t: {value}\n" for name, value in description.items()),
        **{f"{cores}/{name}": "0\n" for name in ("possible", "present", "online")},
        f"{cores}/kernel_max": "0\n",
        **{f"{cores}/cpu0/topology/{name}": "0\n" for name in ("core_id", "physical_package_id")},
        **{f"{cores}/cpu0/topology/{name}": "0\n" for name in ("core_siblings_list", "cluster_cpus_list")},
        f"{cores}/cpu0/topology/core_siblings": "1\n",
        f"{cores}/cpu0/regs/identification/midr_el1": f"{register:#018x}\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return folder
