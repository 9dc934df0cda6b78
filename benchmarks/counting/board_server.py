"""A board on the emulator that runs networks over RPC: the bundle's server, behind a tracker of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from counting.board_bundle import unpacked_bundle
from counting.emulator import device_builder, processor_of
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.targets import TargetSpec

_TRACKER = """
from enet_tvm.rpc.tracker import run_tracker
run_tracker("127.0.0.1", 0, lambda port: print("port", port, flush=True))
"""


@contextlib.contextmanager
def board_server(spec: TargetSpec) -> Iterator[Address]:
    """Run a target's bundle on the emulator; the address is that of the tracker, and the key the target's.

    Raises
    ------
    UserError
        When the tracker or the server ends before it can be asked.
    UnavailableError
        When the emulated device cannot be built here.
    """
    device = device_builder().emulated_device()
    with tempfile.TemporaryDirectory() as folder:
        program = unpacked_bundle(spec, Path(folder)) / "enet-rpcd"
        with _running([sys.executable, "-c", _TRACKER], "port ") as port:
            tracker = Address("127.0.0.1", int(port))
            options = ("--key", spec.rpc_key, "--port", "0", "--tracker", str(tracker))
            with _running(device.command(program, *options, cpu=processor_of(spec)), "registered with the tracker"):
                yield tracker


@contextlib.contextmanager
def _running(command: list[str], sign: str) -> Iterator[str]:
    """Run a program for as long as the context lasts, from when it says a sign; return what follows that in its line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        said = []
        try:
            for line in program.stdout:
                said.append(line)
                if sign in line:
                    yield line.partition(sign)[2].strip()
                    return
            raise UserError(f"{Path(command[0]).name} ended with: {''.join(said)[-300:].strip()}; see that this machine has it")
        finally:
            program.kill()
