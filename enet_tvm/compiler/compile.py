"""Compiling weights, or a network in memory, to an artifact: import, pipeline, link, manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tvm
from tvm import relax

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
from enet_tvm.compatibility import features_for
from enet_tvm.compiler.cuda.tools import find_cuda_tools
from enet_tvm.compiler.frontend.onnx_import import from_onnx, read_onnx_info, read_onnx_source
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.inspection import inspect_library
from enet_tvm.compiler.kernels.common.choices import Choices
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.linking import host_linker
from enet_tvm.compiler.pipeline import Compiled, Numerics, compile_module
from enet_tvm.compiler.quantisation.calibration import calibration_beside, load_calibration
from enet_tvm.compiler.tuning_log import LoggedWorkload, Lookup, find_log, use_log
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.networks import NetworkInMemory, WeightsInfo, load_network, read_info
from enet_tvm.networks.table import require_size
from enet_tvm.places import find_file, name_of
from enet_tvm.size import Size
from enet_tvm.version import __version__, check_stack, stack_versions


@dataclass(frozen=True)
class CompileRequest:
    """The workload to compile, and the options of the compilation.

    Attributes
    ----------
    workload : Workload
        Network, with its input size, target, threads and data type.
    dump_ir : Path or None
        A directory for the module after each phase.
    command : str
        The command line, for the record.
    untuned : bool
        Whether to leave tuning logs alone.
    tuning_log : Path or None
        Directory of the log to use; None for the one that fits best.
    labels : bool
        Whether the artifact returns labels (N x H x W uint8) instead of logits.
    """

    workload: Workload
    dump_ir: Path | None = None
    command: str = ""
    untuned: bool = False
    tuning_log: Path | None = None
    labels: bool = False


def compile_artifact(
    request: CompileRequest,
    directory: Path,
    *,
    choices: Choices | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    made: Callable[[Compiled], None] = lambda compiled: None,
) -> Manifest:
    """Compile a network and write its artifact.

    The same request gives the same library, byte for byte, with the same tuning log and linker, as long as NVRTC makes the same
    PTX of a GPU's kernels (`enet_tvm.compiler.cuda.nvrtc`).

    Parameters
    ----------
    request : CompileRequest
    directory : Path
        Directory to write the artifact to.
    choices : Choices, optional
        Points and schedules of the kernels, instead of a tuning log's.
    say : callable
        Called with sentences about the tuning log: which one, for how many kernels, why another one was of no use.
    made : callable
        Called with the compiled network before it is written.

    Raises
    ------
    UserError
        When the weights, the target or the directory do not serve, or the library would not load on the target.
    """
    check_stack()
    check_destination(directory)
    target = request.workload.target
    if target.gpu is not None:
        find_cuda_tools()
    source = _import(request.workload)
    _check_classes(request, source)
    found = Lookup(choices) if choices is not None else _look_up(request, source)
    for problem in found.problems:
        say(f"warning: {problem}")
    compiled = compile_module(
        source.mod,
        target.to_tvm(),
        request.dump_ir,
        choices=found.choices,
        gpu=target.gpu,
        numerics=_numerics(request, source),
    )
    if not (request.untuned or choices):
        say(found.sentence())
    made(compiled)
    linker = host_linker(target.triple, target.toolchain)
    manifest = _manifest(request, source, compiled.launches).model_copy(update={"tuning": found.info()})
    return write_artifact(
        directory,
        manifest,
        lambda path: compiled.executable.export_library(str(path), fcompile=linker),
        lambda path: inspect_library(path, target),
    )


def compile_untuned(workload: Workload) -> Compiled:
    """Compile a network for its target without a tuning log, and without writing it anywhere.

    Raises
    ------
    UserError
        When the weights or the target do not serve.
    """
    check_stack()
    source, target = _import(workload), workload.target
    numerics = _numerics(CompileRequest(workload), source)
    return compile_module(source.mod, target.to_tvm(), gpu=target.gpu, numerics=numerics)


@dataclass(frozen=True)
class _Source:
    """An imported network and what it says of itself."""

    mod: tvm.IRModule
    info: WeightsInfo
    shape: tuple[int, int, int, int]
    weights_sha256: str


def _import(workload: Workload) -> _Source:
    given = workload.weights
    if isinstance(given, NetworkInMemory):
        return _imported(workload, given, None)
    path = find_file(given)
    if path.suffix == ".onnx":
        shape, weights_sha256 = read_onnx_source(path)
        if workload.size is not None and workload.size != (shape[3], shape[2]):
            raise UserError(f"{path} is of size {shape[3]}x{shape[2]}; leave --size out, or export it at {workload.size}")
        return _Source(from_onnx(path), read_onnx_info(path), shape, weights_sha256)
    return _imported(workload, NetworkInMemory(load_network(path), read_info(path)), path)


def _imported(workload: Workload, source: NetworkInMemory, path: Path | None) -> _Source:
    size = workload.input_size
    require_size(source.network, size)
    shape = (workload.batch, 3, size.height, size.width)
    weights_sha256 = source.sha256 if path is None else sha256(path)
    return _Source(from_torch(source.network, shape), source.info, shape, weights_sha256)


def _look_up(request: CompileRequest, source: _Source) -> Lookup:
    """Return the tuning log for a request, or why there is none."""
    workload = request.workload
    if request.untuned:
        return Lookup()
    if request.tuning_log is not None:
        return use_log(request.tuning_log)
    batch, _, height, width = source.shape
    imported = replace(workload, size=Size(width, height), batch=batch)
    return find_log(LoggedWorkload.of(source.info.network, imported), workload.target)


def _numerics(request: CompileRequest, source: _Source) -> Numerics:
    workload = request.workload
    if workload.dtype != "int8":
        if workload.calibration is not None:
            raise UserError(f"{workload.dtype} needs no calibration; leave --calibration out, or add --dtype int8")
        return Numerics(workload.dtype, labels=request.labels)
    path = workload.calibration or (calibration_beside(workload.weights_file) if workload.weights_file else None)
    if path is None:
        raise UserError(
            f"{source.info.network} is in memory, so no calibration is beside it; name a file that 'calibrate' made of it"
        )
    return Numerics("int8", load_calibration(path, source.weights_sha256).ranges, request.labels)


def _check_classes(request: CompileRequest, source: _Source) -> None:
    in_memory = isinstance(request.workload.weights, NetworkInMemory)
    name = source.info.network if in_memory else str(request.workload.weights)
    classes, (batch, _, height, width) = len(source.info.classes), source.shape
    result = source.mod["main"].ret_ty
    logits = tuple(map(int, result.shape.values)) if isinstance(result, relax.TensorType) else ()
    if in_memory and (len(logits) != 4 or (logits[0], *logits[2:]) != (batch, height, width)):
        returned = "x".join(map(str, logits)) or "something else"
        raise UserError(
            f"{name} returns {returned} for pictures of {width}x{height}, and not one tensor of logits, {batch} x classes "
            f"x {height} x {width}; wrap it in a module that does"
        )
    if logits[1] != classes:
        remedy = "name one for each" if in_memory else "make the file again"
        raise UserError(f"{name} names {classes} classes, but its network has {logits[1]} outputs; {remedy}")
    if classes > 256:
        raise UserError(f"{name} has {classes} classes, and labels are bytes; train it for 256 classes or fewer")


def _manifest(request: CompileRequest, source: _Source, launches: tuple[Launch, ...]) -> Manifest:
    target, stack, weights = request.workload.target, stack_versions(), request.workload.weights_file
    info, shape = source.info, source.shape
    # On a GPU it is not the processor that computes in the data type.
    computes_in = request.workload.dtype if target.gpu is None else "float32"
    return Manifest(
        network=info.network,
        classes=info.classes,
        palette=info.palette,
        input=InputInfo(shape=shape, mean=info.mean, std=info.std),
        output=OutputInfo(shape=(shape[0], *shape[2:]), dtype="uint8", layout="NHW")
        if request.labels
        else OutputInfo(shape=(shape[0], len(info.classes), *shape[2:])),
        target=TargetInfo(
            name=target.name,
            triple=target.triple,
            mcpu=target.mcpu,
            cpu_features=features_for(target.architecture, target.cpu_features, computes_in),
            architecture=target.architecture,
            device="cpu" if target.gpu is None else "cuda",
            core_list=target.core_list,
        ),
        versions=Versions(enet_tvm=__version__, apache_tvm=stack["apache-tvm"], apache_tvm_ffi=stack["apache-tvm-ffi"]),
        hashes=Hashes(weights=source.weights_sha256),
        weights=name_of(weights) if weights else "",
        kernels=tuple(_kernel(launch) for launch in launches),
        kernel_count=len(launches),
        command=request.command,
        dtype=request.workload.dtype,
    )


def _kernel(launch: Launch) -> Kernel:
    # A pooling writes its window indices last, and labels are no layer's output: there is none to describe.
    other = {"max_pool2d_with_window", "argmax"}.intersection(launch.ops)
    layout, codes = launch.layout, launch.codes
    stored = OutputLayout(
        shape=launch.shape, block=max(layout.block, 1), pad=layout.pad, dtype=layout.dtype, scale=codes.scale, zero=codes.zero
    )
    return Kernel(
        name=launch.kernel,
        ops=launch.ops,
        layers=launch.layers,
        output_layout=None if other else stored,
        flops=launch.flops,
        bytes=launch.bytes,
    )
