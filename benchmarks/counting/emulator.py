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

_EMULATED = Path(__file__).parents[2] / "tests/emulated"


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
