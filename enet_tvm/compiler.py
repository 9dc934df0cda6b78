"""From a weights file to an artifact: import, pipeline, link, manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enet_tvm.artifact import (
    Hashes,
    InputInfo,
    Kernel,
    Manifest,
    OutputInfo,
    OutputLayout,
    TargetInfo,
    Versions,
    check_destination,
    write_artifact,
)
from enet_tvm.files import sha256
from enet_tvm.frontend.torch_import import from_torch
from enet_tvm.networks import WeightsInfo, load_network, read_info
from enet_tvm.pipeline import Launch, compile_module
from enet_tvm.places import find_file
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec
from enet_tvm.toolchain import host_linker
from enet_tvm.version import __version__, check_stack, stack_versions


@dataclass(frozen=True)
class CompileRequest:
    """What to compile.

    Attributes
    ----------
    weights : Path
        A safetensors file of `enet_tvm.networks.save_network`.
    size : Size
        Of the input.
    target : TargetSpec
        What to compile for.
    batch : int
        Pictures that go through the network at once.
    dump_ir : Path or None
        A directory for the module after each phase.
    command : str
        The command line, for the record.
    """

    weights: Path
    size: Size
    target: TargetSpec
    batch: int = 1
    dump_ir: Path | None = None
    command: str = ""


def compile_artifact(request: CompileRequest, directory: Path) -> Manifest:
    """Compile a network and write its artifact.

    The same request gives the same library, byte for byte, with the same linker.

    Raises
    ------
    UserError
        When the weights, the target or the directory do not serve.
    """
    check_stack()
    check_destination(directory)
    info, network = read_info(request.weights), load_network(request.weights)
    shape = (request.batch, 3, request.size.height, request.size.width)
    compiled = compile_module(from_torch(network, shape), request.target.to_tvm(), request.dump_ir)
    linker = host_linker(request.target.triple)
    manifest = _manifest(request, info, shape, compiled.launches)
    return write_artifact(directory, manifest, lambda path: compiled.executable.export_library(str(path), fcompile=linker))


def _manifest(
    request: CompileRequest, info: WeightsInfo, shape: tuple[int, int, int, int], launches: tuple[Launch, ...]
) -> Manifest:
    target, stack = request.target, stack_versions()
    return Manifest(
        network=info.network,
        classes=info.classes,
        palette=info.palette,
        input=InputInfo(shape=shape, mean=info.mean, std=info.std),
        output=OutputInfo(shape=(shape[0], len(info.classes), *shape[2:])),
        target=TargetInfo(
            name=target.name,
            triple=target.triple,
            mcpu=target.mcpu,
            cpu_features=target.cpu_features,
            architecture=target.architecture,
        ),
        versions=Versions(enet_tvm=__version__, apache_tvm=stack["apache-tvm"], apache_tvm_ffi=stack["apache-tvm-ffi"]),
        hashes=Hashes(weights=sha256(find_file(request.weights))),
        kernels=tuple(_kernel(launch) for launch in launches),
        kernel_count=len(launches),
        command=request.command,
    )


def _kernel(launch: Launch) -> Kernel:
    # A pooling writes its window indices last: there is no single output to describe.
    several = "max_pool2d_with_window" in launch.ops
    layout = None if several else OutputLayout(shape=launch.shape, block=max(launch.block, 1), pad=launch.pad)
    return Kernel(name=launch.kernel, ops=launch.ops, layers=launch.layers, output_layout=layout)
