"""The tools of `enet_tvm.compiler.arm` on the emulated device, whose file system the programs see."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from enet_tvm.compiler.arm import tools
from enet_tvm.compiler.arm.instructions import Block
from enet_tvm.targets import TargetSpec

PROCESSORS = {
    "cortex-a53": "cortex-a53",
    "cortex-a57": "cortex-a57",
    "cortex-a72": "cortex-a72",
    "cortex-a76": "cortex-a76",
    "neoverse-n1": "neoverse-n1",
}
"""What qemu 7.2 calls a target's processor; all others are counted on `EVERY_INSTRUCTION`."""
EVERY_INSTRUCTION = "max,sme=off"
"""A processor of qemu with all instructions but SME's, which no target has and XNNPACK would take."""

_EMULATED = Path(__file__).parents[2] / "tests/emulated"


def processor_of(spec: TargetSpec) -> str:
    """Return what qemu calls a target's processor, or the one that stands for it."""
    return PROCESSORS.get(spec.mcpu, EVERY_INSTRUCTION)


@functools.cache
def device_builder() -> ModuleType:
    """Return the module that builds the emulated device."""
    if str(_EMULATED) not in sys.path:
        sys.path.append(str(_EMULATED))
    return importlib.import_module("build_device")


@dataclass(frozen=True)
class ArmTools(tools.ArmTools):
    """The emulator with the plugin, and LLVM.

    Attributes
    ----------
    directory : Path
        Where the packages are unpacked and the plugin is.
    device : EmulatedDevice
        The emulated device.
    """

    device: Any

    def blocks(self, program: Sequence[str | Path], cpu: str, environment: Mapping[str, str] | None = None) -> list[Block]:
        """Run an aarch64 program on the device and return the blocks of code that it executed."""
        return self.blocks_under(self.device.root, program, cpu, environment)


def arm_tools(directory: Path | None = None) -> ArmTools:
    """Return the tools, built the first time.

    Raises
    ------
    UnavailableError
        When they, or the device, cannot be built here.
    """
    device = device_builder().emulated_device()
    return ArmTools(tools.arm_tools(directory).directory, device)
