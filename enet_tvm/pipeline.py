"""The way of a network through the compiler, phase by phase.

0  import               enet_tvm.frontend: torch.export or ONNX to Relax, layer names kept
1  fold-batch-norm      into weights and biases
2  fuse-initial-block   convolution | pooling, concatenation and PReLU as one operator
3  fuse-conv2d          bias, shortcut (padded, unpooled) and activation into each convolution
   end-in-argmax        labels instead of logits, where they are wanted
4  block-layout         channel-blocked tensors throughout, with the padding their readers need; shorter elements
5  lower-kernels        the project's register-tile and minimal-filtering kernels at tuned or default tiles, weights packed
6  legalize             what is left, by TVM's own operators
7  fuse-remaining       TVM's generic fusion of that
8  schedule-remaining   parallel and vectorised, by tuned schedules where there are
9  virtual-machine      memory plan and bytecode of the Relax virtual machine

For a GPU, phase 4 does not exist (its kernels take NCHW, pixels in the threads), and phases 5 and 8 are those of its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tvm
from tvm import relax
from tvm.relax import backend, transform

from enet_tvm.cuda.device_compiler import device_compiler
from enet_tvm.cuda.ptxas import assemble
from enet_tvm.cuda.tools import find_cuda_tools
from enet_tvm.dataflow import Dataflow, is_call
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.kernels.choices import DEFAULTS, Choices
from enet_tvm.kernels.elements import dot_products
from enet_tvm.kernels.gpu_tile import GpuUnit
from enet_tvm.kernels.register_tile import VectorUnit
from enet_tvm.ops.layout import DType
from enet_tvm.passes.block_layout import BlockLayout
from enet_tvm.passes.end_in_argmax import EndInArgmax
from enet_tvm.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.passes.fuse_conv2d import FuseConv2D
from enet_tvm.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.passes.lower_gpu_kernels import LowerGpuKernels
from enet_tvm.passes.lower_kernels import LAUNCHES, LowerKernels
from enet_tvm.passes.schedule_remaining import ScheduleRemaining
from enet_tvm.passes.schedule_remaining_gpu import ScheduleRemainingGpu
from enet_tvm.quantisation import Ranges
from enet_tvm.targets.spec import GpuSpec

ATTEMPTS = 4
"""To fit kernels into a GPU: sums of a thread are 32, 16, 8 and 4."""


@dataclass(frozen=True)
class Phase:
    """A named step of the pipeline."""

    name: str
    passes: Sequence[tvm.transform.Pass]


@dataclass(frozen=True)
class Launch:
    """One kernel launch of a forward pass.

    Attributes
    ----------
    kernel : str
        Name of the function in the module.
    ops : tuple of str
        Operators fused into it.
    layers : tuple of str
        Sub-modules of the network that it computes; the last one's result is the kernel's output.
    shape : tuple of int
        Of the output as it is stored.
    block, pad : int
        Channels stored innermost (0 for NCHW), and columns of zeros at either end of a row.
    flops : int
        Of its convolution, two for each multiply-add; 0 where it has none.
    bytes : int
        Of all its arguments: what it must at least read and write.
    dtype : str
        Of the output's elements, see `enet_tvm.ops.Layout`.
    scale, zero : float, int
        What codes mean: ``scale * (code - zero)``.
    """

    kernel: str
    ops: tuple[str, ...]
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    block: int
    pad: int
    flops: int
    bytes: int
    dtype: DType = "float32"
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Numerics:
    """In what a network computes, and what it returns.

    Attributes
    ----------
    dtype : {"float32", "bfloat16", "int8"}
        Of weights and of what layers read; sums are wider, and so are the picture and the logits outside.
    ranges : mapping
        For int8, by layer the least and largest value of its output, and of the network's input.
    labels : bool
        Return N x H x W uint8 classes instead of logits.
    """

    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    ranges: Ranges = field(default_factory=dict)
    labels: bool = False


FLOAT32 = Numerics()


@dataclass(frozen=True)
class Compiled:
    """A network compiled for a target: the executable and the launches of one forward pass, in order."""

    executable: relax.VMExecutable
    launches: tuple[Launch, ...]


def graph_phases(target: tvm.target.Target, choices: Choices = DEFAULTS, numerics: Numerics = FLOAT32) -> list[Phase]:
    """Return the phases from an imported network to scheduled kernels.

    Raises
    ------
    UserError
        When the target's processor has no instruction for the dot products of `numerics`.
    """
    unit = VectorUnit.of(target)
    return [
        *_fusing_phases(),
        *([Phase("end-in-argmax", [EndInArgmax()])] if numerics.labels else []),
        Phase("block-layout", [BlockLayout(unit.lanes, _element(numerics, target))]),
        Phase("lower-kernels", [LowerKernels(unit, choices, numerics.ranges)]),
        *_remaining_phases(),
        Phase("schedule-remaining", [ScheduleRemaining(unit.lanes, choices)]),
    ]


def _element(numerics: Numerics, target: tvm.target.Target) -> DType:
    """Return the element that stands for a dtype on a target, whose dot products it has."""
    if numerics.dtype == "float32":
        return "float32"
    known = dot_products(target)
    wanted: tuple[DType, ...] = ("bfloat16",) if numerics.dtype == "bfloat16" else ("uint8", "int8")
    for element in wanted:
        if element in known:
            return element
    raise UserError(
        f"{target.attrs['mcpu']} has no dot product of {numerics.dtype}, so it would not be faster; "
        "leave --dtype out, or name a target that has one"
    )


def gpu_phases(unit: GpuUnit, smaller: Mapping[str, int] | None = None) -> list[Phase]:
    """Return the phases from an imported network to kernels of a GPU; `smaller` as `LowerGpuKernels` takes it."""
    return [
        *_fusing_phases(),
        Phase("lower-kernels", [LowerGpuKernels(unit, smaller)]),
        *_remaining_phases(),
        Phase("schedule-remaining", [ScheduleRemainingGpu()]),
    ]


def _fusing_phases() -> list[Phase]:
    return [
        Phase("fold-batch-norm", [FoldBatchNorm()]),
        Phase("fuse-initial-block", [FuseInitialBlock()]),
        Phase("fuse-conv2d", [FuseConv2D()]),
    ]


def _remaining_phases() -> list[Phase]:
    return [
        Phase("legalize", [backend.DispatchSortScan(), transform.LegalizeOps(), transform.FoldConstant()]),
        Phase(
            "fuse-remaining",
            [transform.AnnotateTIROpPattern(), transform.FuseOps(), transform.FuseTIR(), transform.DeadCodeElimination()],
        ),
    ]


def machine_phase() -> Phase:
    """Return the phase that makes code of the Relax virtual machine.

    TVM's default pipeline (``relax/pipeline.py``) without ``RewriteDataflowReshape``, which takes every kernel for a
    TE-made one and stops at ours; reshapes among a network's layers do not occur here.
    """
    return Phase(
        "virtual-machine",
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ],
    )


def compile_module(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    dump_ir: Path | None = None,
    choices: Choices = DEFAULTS,
    gpu: GpuSpec | None = None,
    numerics: Numerics = FLOAT32,
) -> Compiled:
    """Compile an imported network.

    Parameters
    ----------
    mod : tvm.IRModule
        From `enet_tvm.frontend`.
    target : tvm.target.Target
        An LLVM target; a CUDA target where there is a GPU.
    dump_ir : Path, optional
        A directory to write the module into after each phase, as TVMScript.
    choices : Choices
        What tuning found out about the kernels of a CPU.
    gpu : GpuSpec, optional
        The GPU that the network runs on.
    numerics : Numerics
        In what a CPU computes and what it returns.

    Raises
    ------
    UserError
        When the CUDA compiler is missing for a GPU, or the target cannot do what `numerics` asks for.
    """
    if gpu is not None and numerics != FLOAT32:
        raise UserError("kernels for GPUs compute in float32 and return logits; leave --dtype and --output out")
    if gpu is not None:
        return _compile_for_gpu(mod, target, dump_ir, gpu)
    return _compile(mod, target, dump_ir, graph_phases(target, choices, numerics))


def _compile_for_gpu(mod: tvm.IRModule, target: tvm.target.Target, dump_ir: Path | None, gpu: GpuSpec) -> Compiled:
    """Compile for a GPU, and again with smaller tiles for those kernels that did not fit into its registers.

    How many registers a kernel takes is known once ptxas has assigned them. What does not fit after the last attempt is for
    the inspection of the result to refuse.
    """
    unit, smaller = GpuUnit(gpu.multiprocessors, gpu.max_registers, gpu.max_threads_per_block), Counter[str]()
    with device_compiler(gpu.arch, gpu.ptx) as made:
        for _ in range(ATTEMPTS):
            compiled = _compile(mod, target, dump_ir, gpu_phases(unit, smaller))
            kernels = assemble(made[-1], gpu.arch, find_cuda_tools()) if made else ()
            crowded = {kernel.name for kernel in kernels if kernel.spill_bytes or kernel.registers > gpu.max_registers}
            crowded &= {f"{launch.kernel}_kernel" for launch in compiled.launches if "conv2d" in launch.kernel}
            if not crowded:
                break
            smaller.update(name.removesuffix("_kernel") for name in crowded)
    return compiled


def _compile(mod: tvm.IRModule, target: tvm.target.Target, dump_ir: Path | None, phases: list[Phase]) -> Compiled:
    _dump(mod, dump_ir, 0, "import")
    with target:
        for number, phase in enumerate(phases, start=1):
            mod = tvm.transform.Sequential(phase.passes)(mod)
            _dump(mod, dump_ir, number, phase.name)
        launches = tuple(launches_of(mod))
        machine = machine_phase()
        mod = tvm.transform.Sequential(machine.passes)(mod)
        _dump(mod, dump_ir, len(phases) + 1, machine.name)
        executable = tvm.compile(mod, target, relax_pipeline=None)
    return Compiled(executable, launches)


def _dump(mod: tvm.IRModule, directory: Path | None, number: int, name: str) -> None:
    if directory is not None:
        with atomic_file(directory / f"{number:02d}-{name}.py") as path:
            path.write_text(mod.script(), encoding="utf-8")


def launches_of(mod: tvm.IRModule) -> list[Launch]:
    """Return the kernel launches of main, described by the pass that made them or, for TVM's own, by their names."""
    described = [json.loads(str(text)) for text in mod["main"].attrs[LAUNCHES]]
    launches = []
    for binding in Dataflow(mod).bindings:
        if not is_call(binding.value, "relax.call_tir"):
            continue
        kernel = str(binding.value.args[0].name_hint)
        out = binding.var.ty
        outs = list(out.fields) if isinstance(out, relax.TupleType) else [out]
        stored = tuple(int(s) for s in outs[0].shape.values)
        size = sum(_bytes(argument.ty) for argument in binding.value.args[1].fields) + sum(map(_bytes, outs))
        if described and described[0]["kernel"] == kernel:
            facts = described.pop(0)
            ops, layers = tuple(facts["ops"]), tuple(facts["layers"])
            known = {key: facts[key] for key in ("block", "pad", "flops", "dtype", "scale", "zero")}
            launches.append(Launch(kernel, ops, layers, stored, bytes=size, **known))
        else:
            launches.append(Launch(kernel, tuple(kernel.strip("0123456789").split("_")), (), stored, 0, 0, 0, size))
    if described:
        raise ValueError(f"the launch of {described[0]['kernel']} got lost on the way through the pipeline")
    return launches


def _bytes(kind: relax.TensorType) -> int:
    return math.prod(int(s) for s in kind.shape.values) * np.dtype(str(kind.dtype)).itemsize
