"""The GPU of a device behind a session: opened where the server leaves that for later, and what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enet_tvm.rpc.session_process import OPEN_GPU

if TYPE_CHECKING:
    from enet_tvm.rpc.session import DeviceSession


def open_gpu(session: DeviceSession) -> None:
    """Open the GPU of a device, which takes seconds; nothing happens if the server opened it when it started, or never does.

    Raises
    ------
    UserError
        When the device is lost, or needs more than a minute.
    """
    with session.within(60, "opening its GPU"):
        if (open_there := session.find(OPEN_GPU)) is not None:
            open_there()


def device_arch(device: Any) -> str:
    """Return the architecture of a CUDA device in NVIDIA's spelling, such as ``sm_53``.

    Parameters
    ----------
    device : tvm.runtime.Device
        The device, here or behind a session.
    """
    return f"sm_{str(device.compute_version).replace('.', '')}"
