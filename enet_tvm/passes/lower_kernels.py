"""Lower the `enet` dialect to calls of generated kernels, with constant weights packed as they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from enet_tvm import ops
from enet_tvm.dataflow import Dataflow, Rewriter, constant, constant_value, is_call, layer_of
from enet_tvm.kernels import conv2d, initial_block, planar, pooling
from enet_tvm.kernels.choices import DEFAULTS, Choices
from enet_tvm.kernels.register_tile import VectorUnit
from enet_tvm.kernels.templates import Conv2DTemplate, InitialBlockTemplate, PlanarTemplate
from enet_tvm.ops import FusedConv2D, Layout

LAUNCHES = "enet.launches"
"""Attribute of main: for each kernel launch of the templates, in order, the JSON of what it computes (see `describe`)."""


@tvm.ir.transform.module_pass(opt_level=0, name="LowerKernels")
class LowerKernels:
    """Replace each operator of the `enet` dialect by ``call_tir`` of a kernel; equal kernels are made once.

    Parameters
    ----------
    unit : VectorUnit
        The target's vector registers, which decide the register tiles.
    choices : Choices
        Which point of a template to make its kernel at.
    """

    def __init__(self, unit: VectorUnit, choices: Choices = DEFAULTS) -> None:
        self.unit = unit
        self.choices = choices

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with kernels; layout conversions are left to ``LegalizeOps``."""
        graph = Dataflow(mod)
        lowering = _Lowering(graph, self.unit, self.choices)
        for binding in graph.bindings:
            lowering.visit(binding)
        mod = graph.rebuilt(lowering.rewriter)
        described = [json.dumps(launch) for launch in lowering.launches]
        mod.update_func(mod.get_global_var("main"), mod["main"].with_attr(LAUNCHES, described))
        return mod


def describe(
    kernel: str, ops_fused: list[str], layers: tuple[str, ...], shape: tuple[int, ...], layout: Layout, flops: int = 0
) -> dict[str, Any]:
    """Return what a launch computes: kernel, operators, sub-modules, and its output's logical shape and layout."""
    return {
        "kernel": kernel,
        "ops": ops_fused,
        "layers": list(layers),
        "shape": list(shape),
        "block": layout.block,
        "pad": layout.pad,
        "flops": flops,
    }


class _Lowering:
    def __init__(self, graph: Dataflow, unit: VectorUnit, choices: Choices) -> None:
        self.graph = graph
        self.unit = unit
        self.choices = choices
        self.rewriter = Rewriter()
        self.launches: list[dict[str, Any]] = []
        self._kernels: dict[Any, tvm.ir.GlobalVar] = {}

    def visit(self, binding: relax.VarBinding) -> None:
        if is_call(binding.value, "enet.fused_conv2d"):
            self._conv2d(binding)
        elif is_call(binding.value, "enet.initial_block"):
            self._initial_block(binding)
        elif (
            is_call(binding.value, "enet.max_pool2d_with_window")
            and ops.MaxPool2DWithWindow.from_call(binding.value).data_layout.block
        ):
            self._pool(binding)
        elif is_call(binding.value, "enet.max_unpool2d") and ops.MaxUnpool2D.from_call(binding.value).data_layout.block:
            self._unpool(binding)
        else:
            self.rewriter.keep(binding)

    def _kernel(self, key: Any, name: str, make: Callable[[], tvm.tirx.PrimFunc]) -> tvm.ir.GlobalVar:
        if key not in self._kernels:
            self._kernels[key] = self.rewriter.add_kernel(make(), name)
        return self._kernels[key]

    def _launch(self, binding: relax.VarBinding, kernel: tvm.ir.GlobalVar, arguments: list[relax.Expr]) -> None:
        out = binding.var.ty
        types = list(out.fields) if isinstance(out, relax.TupleType) else out
        call = relax.op.call_tir(kernel, [self.rewriter.mapped(a) for a in arguments], types)
        self.rewriter.replace(binding.var, self.rewriter.emit(call, binding.var))

    def _conv2d(self, binding: relax.VarBinding) -> None:
        attrs = FusedConv2D.from_call(binding.value)
        data, weight, *rest = binding.value.args
        values = _known(weight)
        spec = replace(attrs, layers=())
        if attrs.out_layout.block:
            blocked = Conv2DTemplate(spec, self.unit)
            tile = self.choices.point(blocked)
            packed = conv2d.pack_weight(values, attrs, tile)
            kernel = self._kernel((blocked, tile), blocked.name, lambda: blocked.kernel(tile))
        else:
            template = PlanarTemplate(spec, self.unit)
            point = self.choices.point(template)
            packed = planar.pack_planar_weight(values, attrs)
            kernel = self._kernel((template, point), template.name, lambda: template.kernel(point))
        self._launch(binding, kernel, [data, constant(packed), *rest])
        flops = 2 * attrs.multiply_adds
        self.launches.append(
            describe(kernel.name_hint, attrs.operators, attrs.layers, attrs.out_shape, attrs.out_layout, flops)
        )

    def _initial_block(self, binding: relax.VarBinding) -> None:
        attrs = ops.InitialBlockAttrs.from_call(binding.value)
        data, weight, bias, scale, shift, slope = binding.value.args
        n, c, h, w = (int(s) for s in data.ty.shape.values)
        shape = (n, c, h, w)
        values, layout = _known(weight), attrs.out_layout
        channels = values.shape[0] + shape[1]
        template = InitialBlockTemplate(shape, values.shape[0], layout, attrs.pool, self.unit)
        tile = self.choices.point(template)
        packed = initial_block.pack_initial_weight(values, channels, layout, tile)
        padded_bias = constant(np.concatenate([_known(bias), np.zeros(shape[1], "float32")]))
        kernel = self._kernel((template, tile), template.name, lambda: template.kernel(tile))
        self._launch(binding, kernel, [data, constant(packed), padded_bias, scale, shift, slope])
        fused = ["conv2d", "bias_add", "max_pool2d", "multiply", "add", "concat", "prelu"]
        out_shape = (shape[0], channels, shape[2] // 2, shape[3] // 2)
        flops = 2 * values.size * out_shape[0] * out_shape[2] * out_shape[3]
        self.launches.append(describe(kernel.name_hint, fused, attrs.layers, out_shape, layout, flops))

    def _pool(self, binding: relax.VarBinding) -> None:
        attrs, data = ops.MaxPool2DWithWindow.from_call(binding.value), binding.value.args[0]
        layout, out = attrs.data_layout, attrs.out_layout
        shape = layout.logical(tuple(int(s) for s in data.ty.shape.values))
        kernel = self._kernel(
            (shape, attrs), "max_pool2d_with_window", lambda: pooling.max_pool2d_with_window(shape, layout, out)
        )
        self._launch(binding, kernel, [data])
        layers, out_shape = (layer_of(binding.var),), (*shape[:2], shape[2] // 2, shape[3] // 2)
        self.launches.append(describe(kernel.name_hint, ["max_pool2d_with_window"], layers, out_shape, out))

    def _unpool(self, binding: relax.VarBinding) -> None:
        attrs = ops.MaxUnpool2D.from_call(binding.value)
        data, window = binding.value.args
        shape = attrs.data_layout.logical(tuple(int(s) for s in data.ty.shape.values))
        kernel = self._kernel(
            (shape, attrs),
            "max_unpool2d",
            lambda: pooling.max_unpool2d(shape, attrs.data_layout, attrs.output_size, attrs.out_layout),
        )
        self._launch(binding, kernel, [data, window])
        layers, out_shape = (layer_of(binding.var),), (*shape[:2], *attrs.output_size)
        self.launches.append(describe(kernel.name_hint, ["max_unpool2d"], layers, out_shape, attrs.out_layout))


def _known(expr: relax.Expr) -> np.ndarray:
    value = constant_value(expr)
    if value is None:
        raise ValueError("a convolution's weights must be constants")
    return value
