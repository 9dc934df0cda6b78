"""The way of a network through the compiler, phase by phase.

0  import               enet_tvm.compiler.frontend: PyTorch or ONNX to Relax, layer names kept
1  fold-batch-norm      into weights and biases
2  fuse-initial-block   convolution | pooling, concatenation and PReLU as one operator
3  fuse-conv2d          bias, shortcut (padded, unpooled) and activation into each convolution
   end-in-argmax        labels instead of logits, where they are wanted
4  block-layout         channel-blocked tensors throughout, with the padding their readers need; shorter elements
5  lower-kernels        the project's register-tile and Winograd kernels at tuned or default tiles, weights packed
6  legalize             what is left, by TVM's own operators
7  fuse-remaining       TVM's generic fusion of that
8  schedule-remaining   parallel and vectorised, by tuned schedules where there are
9  virtual-machine      memory plan and bytecode of the Relax virtual machine

For a GPU, phase 4 does not exist (its kernels take NCHW, pixels in the threads); in its place fuse-bottlenecks puts the end of
each bottleneck and the beginning of the next into one kernel. Phase 5 has other templates and phase 8 other rules. For float16
phase 5 has templates that multiply pairs or matrices of it, where the GPU has a rate for that, and halve-tensors follows: what
kernels hand on is stored as float16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax import backend, transform

from enet_tvm.artifact import Precision
from enet_tvm.compiler.cuda.device_compiler import device_compiler, kernel_ptx
from enet_tvm.compiler.cuda.lowering import IncrementalLowering
from enet_tvm.compiler.cuda.ptxas import KernelResources, assemble
from enet_tvm.compiler.cuda.tools import find_cuda_tools
from enet_tvm.compiler.dataflow import Dataflow, is_call
from enet_tvm.compiler.kernels.common.choices import DEFAULTS, Choices
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.common.template import Template, Templates
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.kernels.gpu.fitting import FittingChoices
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit
from enet_tvm.compiler.ops.layout import DType
from enet_tvm.compiler.passes.add_frame import AddFrame
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.end_in_argmax import EndInArgmax
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_bottlenecks import FuseBottlenecks
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.fuse_initial_downsampler import FuseInitialDownsampler
from enet_tvm.compiler.passes.halve_tensors import HalveTensors
from enet_tvm.compiler.passes.lower_kernels import LowerKernels, footprint
from enet_tvm.compiler.passes.schedule_remaining import ScheduleRemaining
from enet_tvm.compiler.passes.schedule_remaining_gpu import ScheduleRemainingGpu
from enet_tvm.compiler.quantisation.codes import Ranges
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.targets.spec import GpuSpec

ATTEMPTS = 3
"""Attempts to compile a network for a GPU: what did not fit in one is a smaller kernel, which fits alone, in the next."""


MOST_ELEMENTS = 2**31 - 1
"""Elements of a tensor that kernels can index: TVM computes offsets in signed 32-bit integers."""


@dataclass(frozen=True)
class Phase:
    """A named step of the pipeline."""

    name: str
    passes: Sequence[tvm.transform.Pass]


@dataclass(frozen=True)
class Numerics:
    """The type that a network computes in, and what it returns.

    Attributes
    ----------
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Type of weights and of what layers read; sums are wider, and so are the picture and the logits outside.
    ranges : mapping
        Layer -> least and largest value of its output, and of the network's input; for int8 alone.
    labels : bool
        Whether it returns N x H x W uint8 classes instead of logits.
    """

    dtype: Precision = "float32"
    ranges: Ranges = field(default_factory=dict)
    labels: bool = False


FLOAT32 = Numerics()


@dataclass(frozen=True)
class Compiled:
    """A network compiled for a target.

    Attributes
    ----------
    executable : relax.VMExecutable
        What is exported as a library.
    launches : tuple of Launch
        Launches of one forward pass, in order.
    functions : mapping
        The kernels by name, before TVM generates code for them.
    device_code : str
        PTX of all kernels; empty without a GPU.
    """

    executable: relax.VMExecutable
    launches: tuple[Launch, ...]
    functions: Mapping[str, tvm.tirx.PrimFunc] = field(default_factory=dict)
    device_code: str = ""


def graph_phases(target: tvm.target.Target, choices: Choices = DEFAULTS, numerics: Numerics = FLOAT32) -> list[Phase]:
    """Return the phases from an imported network to scheduled kernels.

    Raises
    ------
    UserError
        When the target's processor has no instruction for the arithmetic or the dot products of `numerics`.
    """
    element = _element(numerics, target)
    unit = VectorUnit.of(target, element)
    templates = cpu_templates(unit)
    return [
        *_fusing_phases(templates),
        *_ending_phases(templates, numerics.labels),
        Phase("block-layout", [BlockLayout(templates, element)]),
        Phase("lower-kernels", [LowerKernels(templates, choices, numerics.ranges)]),
        *_remaining_phases(),
        Phase("schedule-remaining", [ScheduleRemaining(VectorUnit.of(target).lanes, choices)]),
    ]


def _element(numerics: Numerics, target: tvm.target.Target) -> DType:
    """Return the element type that stands for a dtype on a target, one whose dot products its processor has."""
    if numerics.dtype == "float32":
        return "float32"
    known = dot_products(target)
    wanted: tuple[DType, ...] = ("uint8", "int8") if numerics.dtype == "int8" else (numerics.dtype,)
    for element in wanted:
        if element in known:
            return element
    lacks = "arithmetic" if numerics.dtype == "float16" else "dot product"
    raise UserError(
        f"{target.attrs['mcpu']} has no {lacks} of {numerics.dtype}, so it would not be faster; "
        "leave --dtype out, or name a target that has one"
    )


def gpu_phases(unit: GpuUnit, choices: Choices = DEFAULTS, numerics: Numerics = FLOAT32) -> list[Phase]:
    """Return the phases from an imported network to kernels of a GPU, in float32, or float16 where it has a rate for that."""
    templates = gpu_templates(unit)
    lowering = LowerKernels(templates, choices)
    halving = [Phase("halve-tensors", [HalveTensors(lowering)])] if numerics.dtype == "float16" else []
    return [
        *_fusing_phases(templates),
        *_ending_phases(templates, numerics.labels),
        Phase("fuse-bottlenecks", [FuseInitialDownsampler(templates), FuseBottlenecks(templates)]),
        Phase("lower-kernels", [lowering]),
        *halving,
        *_remaining_phases(),
        Phase("schedule-remaining", [ScheduleRemainingGpu()]),
    ]


def _fusing_phases(templates: Templates) -> list[Phase]:
    return [
        Phase("fold-batch-norm", [FoldBatchNorm()]),
        Phase("fuse-initial-block", [FuseInitialBlock(templates)]),
        Phase("fuse-conv2d", [FuseConv2D(templates)]),
    ]


def _ending_phases(templates: Templates, labels: bool) -> list[Phase]:
    return [Phase("end-in-argmax", [EndInArgmax(templates)])] if labels else []


def _remaining_phases() -> list[Phase]:
    return [
        Phase("legalize", [backend.DispatchSortScan(), transform.LegalizeOps(), transform.FoldConstant()]),
        Phase(
            "fuse-remaining",
            [transform.AnnotateTIROpPattern(), transform.FuseOps(), transform.FuseTIR(), transform.DeadCodeElimination()],
        ),
    ]


def machine_phase(*, frame: bool = False) -> Phase:
    """Return the phase that makes code of the Relax virtual machine; `frame` adds the function of a GPU that is one graph.

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
            *([AddFrame()] if frame else []),
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
        Module of `enet_tvm.compiler.frontend`.
    target : tvm.target.Target
        An LLVM target; a CUDA target where there is a GPU.
    dump_ir : Path, optional
        A directory to write the module into after each phase, as TVMScript.
    choices : Choices
        Points and schedules for the kernels, such as those of a tuning log; of a GPU's kernels points alone, and smaller ones
        where they do not fit into its registers.
    gpu : GpuSpec, optional
        The GPU that the network runs on.
    numerics : Numerics
        The type that it computes in, and what it returns; on a GPU float16 is what tensors between kernels are stored as, and
        what is multiplied by those kernels for which the GPU has a rate.

    Raises
    ------
    UserError
        When the CUDA compiler is missing for a GPU, or the target cannot do what `numerics` asks for.
    """
    if gpu is not None and numerics.dtype not in ("float32", "float16"):
        raise UserError(f"kernels for GPUs have no {numerics.dtype}; leave --dtype out, or give --dtype float16")
    if gpu is not None:
        return _compile_for_gpu(mod, target, dump_ir, gpu, choices, numerics)
    return _compile(mod, target, dump_ir, graph_phases(target, choices, numerics))


def _compile_for_gpu(
    mod: tvm.IRModule, target: tvm.target.Target, dump_ir: Path | None, gpu: GpuSpec, wanted: Choices, numerics: Numerics
) -> Compiled:
    """Compile for a GPU, and again with smaller tiles for those kernels that did not fit into its registers.

    How many registers a kernel takes is known once ptxas has assigned them. What does not fit after the last attempt is for
    the inspection of the result to refuse.
    """
    unit = (HalfUnit if numerics.dtype == "float16" else GpuUnit).of(gpu)
    choices, tools = FittingChoices(wanted), find_cuda_tools()

    def spills(kernel: KernelResources) -> bool:
        return kernel.spill_bytes > 0 or kernel.registers > gpu.max_registers

    def fits(template: Template, point: Any) -> bool:
        """Whether a kernel alone fits, which takes a second where the network takes half a minute."""
        return not any(map(spills, assemble(kernel_ptx(template.kernel(point), target, gpu.arch), gpu.arch, tools)))

    with (
        device_compiler(gpu.arch, gpu.ptx, gpu.max_registers) as made,
        IncrementalLowering().pipeline() as tir_pipeline,
    ):
        for _ in range(ATTEMPTS):
            compiled = _compile(mod, target, dump_ir, gpu_phases(unit, choices, numerics), tir_pipeline)
            kernels = assemble(made[-1], gpu.arch, tools) if made else ()
            crowded = {kernel.name for kernel in kernels if spills(kernel)}
            templates = {launch.template for launch in compiled.launches if f"{launch.kernel}_kernel" in crowded}
            shrunk = [choices.shrink(template, fits) for template in templates if template is not None]
            if not any(shrunk):
                break
    return replace(compiled, device_code=made[-1] if made else "")


def _compile(
    mod: tvm.IRModule, target: tvm.target.Target, dump_ir: Path | None, phases: list[Phase], tir_pipeline: str = "default"
) -> Compiled:
    _dump(mod, dump_ir, 0, "import")
    with target:
        for number, phase in enumerate(phases, start=1):
            mod = tvm.transform.Sequential(phase.passes)(mod)
            _dump(mod, dump_ir, number, phase.name)
        require_indexable(mod)
        launches = launches_of(mod, phases)
        functions = {v.name_hint: f for v, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}
        machine = machine_phase(frame=target.kind.name == "cuda")
        mod = tvm.transform.Sequential(machine.passes)(mod)
        _dump(mod, dump_ir, len(phases) + 1, machine.name)
        executable = tvm.compile(mod, target, relax_pipeline=None, tir_pipeline=tir_pipeline)
    return Compiled(executable, launches, functions)


def require_indexable(mod: tvm.IRModule) -> None:
    """Refuse a network with a tensor of more elements than kernels can count: they compute their indices in 32 bits.

    What lies beyond would be written to and read from anywhere.

    Raises
    ------
    UserError
        When there is such a tensor between two kernels, or before the first or after the last.
    """
    graph = Dataflow(mod)
    for var in [*graph.function.params, *(binding.var for binding in graph.bindings)]:
        for kind in var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]:
            shape = tuple(map(int, kind.shape.values)) if isinstance(kind, relax.TensorType) else ()
            if math.prod(shape) > MOST_ELEMENTS:
                raise UserError(
                    f"a tensor of {'x'.join(map(str, shape))} has {math.prod(shape):,} elements, and kernels count to "
                    f"{MOST_ELEMENTS:,}; give a smaller --batch, or a smaller --size"
                )


def _dump(mod: tvm.IRModule, directory: Path | None, number: int, name: str) -> None:
    if directory is not None:
        with atomic_file(directory / f"{number:02d}-{name}.py") as path:
            path.write_text(mod.script(), encoding="utf-8")


def launches_of(mod: tvm.IRModule, phases: Sequence[Phase]) -> tuple[Launch, ...]:
    """Return the kernel launches of main after all of `phases`.

    Those of the templates are as the pass that made them says, those of TVM's own are known by their names.
    """
    # The last of these passes knows them as they are after all of them.
    lowered = [each.launches for phase in phases for each in phase.passes if isinstance(each, LowerKernels | HalveTensors)]
    made = list(lowered[-1]) if lowered else []
    launches = []
    for binding in Dataflow(mod).bindings:
        if not is_call(binding.value, "relax.call_tir"):
            continue
        kernel = str(binding.value.args[0].name_hint)
        if made and made[0].kernel == kernel:
            launches.append(made.pop(0))
            continue
        out = binding.var.ty
        outs = list(out.fields) if isinstance(out, relax.TupleType) else [out]
        inputs = [argument.ty for argument in binding.value.args[1].fields]
        launches.append(Launch(kernel, tuple(kernel.strip("0123456789").split("_")), (), *footprint(inputs, outs)))
    if made:
        raise ValueError(f"the launch of {made[0].kernel} got lost on the way through the pipeline")
    return tuple(launches)
