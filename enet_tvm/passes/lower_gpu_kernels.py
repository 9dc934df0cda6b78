"""Lower the `enet` dialect to calls of generated GPU kernels, with constant weights packed as they are read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from enet_tvm import ops
from enet_tvm.dataflow import Dataflow, Rewriter, constant, constant_value, is_call, layer_of
from enet_tvm.errors import UserError
from enet_tvm.kernels.gpu_conv2d import conv2d_tile, gpu_conv2d, pack_gpu_vector, pack_gpu_weight
from enet_tvm.kernels.gpu_initial_block import gpu_initial_block, pack_gpu_initial_weight
from enet_tvm.kernels.gpu_pooling import gpu_max_pool2d_with_window, gpu_max_unpool2d
from enet_tvm.kernels.gpu_tile import GpuUnit
from enet_tvm.kernels.gpu_transposed import gpu_conv2d_transpose, pack_transposed_weight, transposed_tile
from enet_tvm.ops import PLANAR, FusedConv2D
from enet_tvm.passes.lower_kernels import LAUNCHES, describe

Shape = tuple[int, int, int, int]


@tvm.ir.transform.module_pass(opt_level=0, name="LowerGpuKernels")
class LowerGpuKernels:
    """Replace each operator of the `enet` dialect by ``call_tir`` of a GPU kernel; equal kernels are made once.

    Tensors stay NCHW throughout: neighbouring threads take neighbouring pixels, which lie next to each other there.

    Parameters
    ----------
    unit : GpuUnit
        The machine, which decides how much each thread computes.
    smaller : mapping of str to int
        Name of a convolution's kernel -> how often to halve what each of its threads computes.
    """

    def __init__(self, unit: GpuUnit, smaller: Mapping[str, int] | None = None) -> None:
        self.unit = unit
        self.smaller = smaller or {}

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with kernels."""
        graph = Dataflow(mod)
        lowering = _Lowering(self.unit, self.smaller)
        for binding in graph.bindings:
            lowering.visit(binding)
        mod = graph.rebuilt(lowering.rewriter)
        described = [json.dumps(launch) for launch in lowering.launches]
        mod.update_func(mod.get_global_var("main"), mod["main"].with_attr(LAUNCHES, described))
        return mod


class _Lowering:
    def __init__(self, unit: GpuUnit, smaller: Mapping[str, int]) -> None:
        self.unit = unit
        self.smaller = smaller
        self.rewriter = Rewriter()
        self.launches: list[dict[str, Any]] = []
        self._kernels: dict[Any, tvm.ir.GlobalVar] = {}
        self._names: dict[FusedConv2D, str] = {}

    def visit(self, binding: relax.VarBinding) -> None:
        for operator, lower in (
            ("enet.fused_conv2d", self._conv2d),
            ("enet.initial_block", self._initial_block),
            ("enet.max_pool2d_with_window", self._pool),
            ("enet.max_unpool2d", self._unpool),
        ):
            if is_call(binding.value, operator):
                lower(binding)
                return
        self.rewriter.keep(binding)

    def _launch(
        self,
        binding: relax.VarBinding,
        key: Any,
        name: str,
        make: Callable[[], tvm.tirx.PrimFunc],
        arguments: list[relax.Expr],
        **facts: Any,
    ) -> None:
        """Emit the call of a kernel and describe it; `facts` are operators, layers, shape and FLOPs."""
        if key not in self._kernels:
            self._kernels[key] = self.rewriter.add_kernel(make(), name)
        kernel, out = self._kernels[key], binding.var.ty
        types = list(out.fields) if isinstance(out, relax.TupleType) else out
        call = relax.op.call_tir(kernel, [self.rewriter.mapped(a) for a in arguments], types)
        self.rewriter.replace(binding.var, self.rewriter.emit(call, binding.var))
        self.launches.append(describe(kernel.name_hint, layout=PLANAR, **facts))

    def _conv2d(self, binding: relax.VarBinding) -> None:
        attrs = FusedConv2D.from_call(binding.value)
        data, weight, *rest = binding.value.args
        values, spec = _known(weight), replace(attrs, layers=())
        name, unit = self._name(spec), self.unit
        for _ in range(self.smaller.get(name, 0)):
            unit = unit.smaller()
        if attrs.transposed:
            tile = transposed_tile(spec, unit)
            make, packed = gpu_conv2d_transpose, pack_transposed_weight(values, spec, tile)
        else:
            tile = conv2d_tile(spec, unit)
            make, packed = gpu_conv2d, pack_gpu_weight(values, tile)
        count = 1 + (attrs.inner_activation == "prelu") + (attrs.activation == "prelu")
        vectors = [constant(pack_gpu_vector(_known(vector), tile)) for vector in rest[:count]]
        self._launch(
            binding,
            (spec, tile),
            name,
            lambda: make(spec, tile),
            [data, constant(packed), *vectors, *rest[count:]],
            ops_fused=attrs.operators,
            layers=attrs.layers,
            shape=attrs.out_shape,
            flops=2 * attrs.multiply_adds,
        )

    def _name(self, spec: FusedConv2D) -> str:
        """Return a name for the kernel of a convolution, the same one whatever its tile."""
        if spec not in self._names:
            base, taken = spec.kernel_name, set(self._names.values())
            numbered = (base if number == 1 else f"{base}_{number}" for number in itertools.count(1))
            self._names[spec] = next(name for name in numbered if name not in taken)
        return self._names[spec]

    def _initial_block(self, binding: relax.VarBinding) -> None:
        attrs = ops.InitialBlockAttrs.from_call(binding.value)
        data, weight, bias, *vectors = binding.value.args
        shape, values = _shape(data), _known(weight)
        out = _shape(binding.var)
        filters, pool = values.shape[0], attrs.pool
        padded = constant(np.concatenate([_known(bias), np.zeros(shape[1], "float32")]))
        self._launch(
            binding,
            (shape, filters, pool),
            "initial_block",
            lambda: gpu_initial_block(shape, filters, pool),
            [data, constant(pack_gpu_initial_weight(values, out[1])), padded, *vectors],
            ops_fused=["conv2d", "bias_add", "max_pool2d", "multiply", "add", "concat", "prelu"],
            layers=attrs.layers,
            shape=out,
            flops=2 * values.size * out[0] * out[2] * out[3],
        )

    def _pool(self, binding: relax.VarBinding) -> None:
        shape = _shape(binding.value.args[0])
        self._launch(
            binding,
            ("pool", shape),
            "max_pool2d_with_window",
            lambda: gpu_max_pool2d_with_window(shape),
            [binding.value.args[0]],
            ops_fused=["max_pool2d_with_window"],
            layers=(layer_of(binding.var),),
            shape=(*shape[:2], shape[2] // 2, shape[3] // 2),
        )

    def _unpool(self, binding: relax.VarBinding) -> None:
        size = ops.MaxUnpool2D.from_call(binding.value).output_size
        data, window = binding.value.args
        shape = _shape(data)
        self._launch(
            binding,
            ("unpool", shape, size),
            "max_unpool2d",
            lambda: gpu_max_unpool2d(shape, size),
            [data, window],
            ops_fused=["max_unpool2d"],
            layers=(layer_of(binding.var),),
            shape=(*shape[:2], *size),
        )


def _shape(expr: relax.Expr) -> Shape:
    n, c, h, w = (int(extent) for extent in expr.ty.shape.values)
    return n, c, h, w


def _known(expr: relax.Expr) -> np.ndarray:
    value = constant_value(expr)
    if value is None:
        raise ValueError("what a convolution multiplies and adds must be constant")
    if value.dtype != np.float32:
        raise UserError(f"GPUs compute in float32 here, and this network has weights of {value.dtype}; leave them float32")
    return value
