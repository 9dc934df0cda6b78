"""ENet at 640x360 for a GPU, its tiles fitted to the registers: compiled once in a run of the suite, for all who look at it."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any, cast

import tvm
from compiled import random_enet
from cuda_network import CudaNetwork, assembled_network
from shared import made_once

from enet_tvm.artifact import Precision
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.pipeline import Compiled, Numerics
from enet_tvm.networks import load_network

SIZE = (360, 640)
"""Height and width of its pictures."""


def enet_for_gpu(target: str, dtype: Precision = "float32") -> tuple[CudaNetwork, Compiled]:
    """Return an ENet that was never trained, as CUDA C++ and compiled, but for what the host executes.

    Raises
    ------
    UserError
        When the CUDA compiler is not installed.
    """
    place = _compiled(target, dtype)
    module = tvm.ir.load_json((place / "module.json").read_text())
    network = CudaNetwork((place / "source.cu").read_text(), module, launches_for_gpu(target, dtype))
    no_host = cast(Any, None)  # what it executes cannot be kept
    return network, Compiled(no_host, network.launches, network.kernels, (place / "code.ptx").read_text())


def launches_for_gpu(target: str, dtype: Precision = "float32") -> tuple[Launch, ...]:
    """Return what a forward pass of that network launches; it raises what `enet_for_gpu` does."""
    launches: tuple[Launch, ...] = pickle.loads((_compiled(target, dtype) / "launches").read_bytes())
    return launches


def _compiled(target: str, dtype: Precision) -> Path:
    def make(place: Path) -> None:
        network, compiled = assembled_network(_imported(), target, numerics=Numerics(dtype))
        place.mkdir()
        (place / "source.cu").write_text(network.source)
        (place / "code.ptx").write_text(compiled.device_code)
        (place / "module.json").write_text(tvm.ir.save_json(network.module))
        (place / "launches").write_bytes(pickle.dumps(network.launches))

    return made_once(f"enet-for-{target}-{dtype}", make)


@functools.cache
def _imported() -> tvm.IRModule:
    return from_torch(load_network(random_enet()).eval(), (1, 3, *SIZE))
