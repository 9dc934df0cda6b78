"""Compiled networks, each made once in a run of the suite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shared import made_once

if TYPE_CHECKING:
    import tvm

    from enet_tvm.compiler.compile import CompileRequest


def artifact_of(request: CompileRequest, *, optimised: bool = True) -> Path:
    """Return the artifact that a request makes, which is not to be changed: a copy may be.

    What is asked for, and the content of the files that it names, decide which one that is. Where only results count, not
    `optimised` machine code is made in half the time.
    """
    from enet_tvm.compiler.compile import compile_artifact

    def make(place: Path) -> None:
        with nullcontext() if optimised else unoptimised_code():
            compile_artifact(request, place)

    return made_once(f"artifact-{_key(request)}{'' if optimised else '-unoptimised'}", make)


@contextmanager
def unoptimised_code() -> Iterator[None]:
    """While this context is entered, networks are compiled without LLVM's optimisations."""
    from quick_code import unoptimised

    from enet_tvm.compiler import compile as compiler

    compile_module = compiler.compile_module

    def compile_quickly(mod: tvm.IRModule, target: tvm.target.Target, *arguments: Any, **options: Any) -> Any:
        return compile_module(mod, unoptimised(target), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile_module", compile_quickly)
        yield


def shipped_enet(target: str = "native", *, optimised: bool = True, **options: Any) -> Path:
    """Return the artifact of the ENet that is shipped, at 64x48, without tuning; options are those of `compile_request`."""
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.size import Size
    from enet_tvm.targets import load_target

    fixed: dict[str, Any] = {"weights": DEFAULT_WEIGHTS, "size": Size(64, 48), "untuned": True, "command": "pytest"}
    return artifact_of(compile_request(target=load_target(target), **{**fixed, **options}), optimised=optimised)


def small_network(*, labels: bool = False) -> Path:
    """Return the artifact of a network of two convolutions and five classes, for this machine at 64x48."""
    import torch
    from torch import nn

    from enet_tvm.compiler.compile import compile_artifact
    from enet_tvm.networks import NetworkInMemory, WeightsInfo
    from enet_tvm.size import Size
    from enet_tvm.targets import load_target

    def make(place: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.PReLU(8), nn.ConvTranspose2d(8, 5, 2, 2)).eval()
        info = WeightsInfo("small", tuple("abcde"), tuple((i, i, i) for i in range(5)), (0.5,) * 3, (0.2,) * 3)
        given = {"weights": NetworkInMemory(network, info), "size": Size(64, 48), "target": load_target("native")}
        compile_artifact(compile_request(**given, labels=labels, command="pytest"), place)

    return made_once(f"small-{'labels' if labels else 'logits'}", make)


def compile_request(**options: Any) -> CompileRequest:
    """Return a request to compile; options are those of `CompileRequest` and of its `Workload`."""
    from enet_tvm.compiler.compile import CompileRequest
    from enet_tvm.compiler.workload import Workload

    of_workload = {field.name: options.pop(field.name) for field in fields(Workload) if field.name in options}
    return CompileRequest(Workload(**of_workload), **options)


def random_enet() -> Path:
    """Return weights of an ENet for CamVid that was never trained."""
    return made_once("random-enet.safetensors", _save_random_enet)


def _save_random_enet(path: Path) -> None:
    import torch

    from enet_tvm.data.classes import CAMVID
    from enet_tvm.networks import ENet, WeightsInfo, save_network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ENet(len(CAMVID)).eval()
    save_network(network, WeightsInfo("enet", CAMVID.names, CAMVID.palette, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), path)


def _key(request: CompileRequest) -> str:
    from enet_tvm.places import find_file

    digest = hashlib.sha256()
    for name, value in {**vars(request), **vars(request.workload)}.items():
        digest.update(f"{name}={value!r};".encode())
        if isinstance(value, Path):
            place = find_file(value) if name == "weights" else value
            for file in [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file()):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
