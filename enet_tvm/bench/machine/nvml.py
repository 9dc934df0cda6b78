"""An NVIDIA GPU as NVML, the library of its driver, tells of it: energy, clocks, temperature, and what holds it back."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

_DRIVER = "libcuda.so.1"

_REASONS = {
    0x04: "its power limit holds its clock down",
    0x08: "its hardware slows it down",
    0x20: "it is too warm for its full clock",
    0x40: "its hardware slows it down because it is too hot",
    0x80: "its power supply slows it down",
}
"""Bits of NVML's clock event reasons; what is left out slows nothing down (idle), or was asked for (application clocks)."""

_POLICIES = {
    "its power limit": "NVML_PERF_POLICY_POWER",
    "its temperature": "NVML_PERF_POLICY_THERMAL",
    "its board's limit": "NVML_PERF_POLICY_BOARD_LIMIT",
    "its reliability limit": "NVML_PERF_POLICY_RELIABILITY",
}
"""Causes that may hold a GPU back, whose time NVML counts, and NVML's names of them."""


class GpuUnknownError(Exception):
    """NVML tells nothing of the GPU; its message is the end of a sentence that says why."""


class NvidiaGpu:
    """The GPU that CUDA takes by default; every figure is None, or missing, where the GPU or its driver does not tell it.

    Raises
    ------
    GpuUnknownError
        When nvidia-ml-py, the driver or the GPU is missing.

    Attributes
    ----------
    name : str
        Name of the GPU, as NVIDIA gives it.
    driver : str
        Version of the driver.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise GpuUnknownError("nvidia-ml-py is not installed; run: pip install 'enet-tvm[cuda]'") from None
        self._nvml: ModuleType = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuUnknownError(f"NVML, the library of NVIDIA's driver, does not start ({error})") from None
        try:
            # CUDA counts GPUs in an order of its own, and only those that CUDA_VISIBLE_DEVICES leaves.
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(_pci_bus_id())
            self.name: str = pynvml.nvmlDeviceGetName(self._handle)
            self.driver: str = pynvml.nvmlSystemGetDriverVersion()
        except (pynvml.NVMLError, GpuUnknownError) as error:
            self.close()
            raise GpuUnknownError(f"NVML does not find the GPU that CUDA takes ({error})") from None

    def close(self) -> None:
        """Leave NVML."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def microjoules(self) -> int | None:
        """Return the energy that it took since its driver was loaded, in uJ; GPUs before Volta do not count it."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else 1000 * millijoules

    def watts(self) -> float | None:
        """Return the power that it takes now, in watts."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    def clock(self) -> float | None:
        """Return the clock of its multiprocessors now, in MHz."""
        return self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def celsius(self) -> float | None:
        """Return its temperature, in degrees Celsius."""
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        newer = self._ask("nvmlDeviceGetTemperatureV", sensor)
        return self._ask("nvmlDeviceGetTemperature", sensor) if newer is None else newer

    def celsius_limit(self) -> float | None:
        """Return the temperature from which it slows down, in degrees Celsius."""
        return self._ask("nvmlDeviceGetTemperatureThreshold", self._nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)

    def reasons(self) -> tuple[str, ...]:
        """Return in clauses what holds its clock down now."""
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # drivers before 535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return tuple(text for bit, text in _REASONS.items() if (bits or 0) & bit)

    def held_back(self) -> dict[str, tuple[float, float]]:
        """Return by cause the seconds for which it was held back, and the GPU's time stamp of that reading in seconds."""
        found = {}
        for cause, policy in _POLICIES.items():
            status = self._ask("nvmlDeviceGetViolationStatus", getattr(self._nvml, policy))
            if status is not None:
                found[cause] = (1e-9 * status.violationTime, 1e-6 * status.referenceTime)
        return found

    def peak_flops(self) -> float | None:
        """Return the float32 operations a second of all its cores at their highest clock; a multiply-add is two."""
        cores = self._ask("nvmlDeviceGetNumGpuCores")
        clock = self._ask("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)
        return 2 * cores * 1e6 * clock if cores and clock else None

    def peak_bytes(self) -> float | None:
        """Return the bytes a second of its memory at the highest clock, two transfers a cycle."""
        bits = self._ask("nvmlDeviceGetMemoryBusWidth")
        clock = self._ask("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_MEM)
        return 2 * bits / 8 * 1e6 * clock if bits and clock else None

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return what a function of NVML says of the GPU; None when it has no answer."""
        call: Callable[..., Any] | None = getattr(self._nvml, function, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


@contextlib.contextmanager
def open_gpu() -> Iterator[NvidiaGpu]:
    """Yield the GPU that CUDA takes by default.

    Raises
    ------
    GpuUnknownError
        When nvidia-ml-py, the driver or the GPU is missing.
    """
    gpu = NvidiaGpu()
    try:
        yield gpu
    finally:
        gpu.close()


def _pci_bus_id() -> str:
    """Return the PCI bus ID of CUDA's first device."""
    device, text = ctypes.c_int(), ctypes.create_string_buffer(32)
    try:
        driver = ctypes.CDLL(_DRIVER)
        status = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetPCIBusId(text, len(text), device)
        )
    except (OSError, AttributeError):
        raise GpuUnknownError("there is no CUDA driver") from None
    if status:
        raise GpuUnknownError(f"its CUDA driver finds none, error {status}")
    return text.value.decode()
