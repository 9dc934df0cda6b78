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
from enet_tvm.errors import UserError
from enet_tvm.kernels import conv2d, initial_block, planar, pooling, winograd
from enet_tvm.kernels.choices import DEFAULTS, Choices
from enet_tvm.kernels.register_tile import RegisterTile, VectorUnit
from enet_tvm.kernels.templates import Conv2DTemplate, InitialBlockTemplate, PlanarTemplate, WinogradTemplate
from enet_tvm.kernels.winograd import WinogradTile
from enet_tvm.ops import FusedConv2D, Layout
from enet_tvm.quantisation import INPUT, Codes, Ranges, bfloat16_bits, quantise_weight, to_words, zero_starts

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
    ranges : mapping
        By layer, the least and largest value of its output; needed of those that are stored as codes, and of the input.
    """

    def __init__(self, unit: VectorUnit, choices: Choices = DEFAULTS, ranges: Ranges | None = None) -> None:
        self.unit = unit
        self.choices = choices
        self.ranges = ranges or {}

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with kernels; layout conversions are left to ``LegalizeOps``."""
        graph = Dataflow(mod)
        lowering = _Lowering(graph, self.unit, self.choices, self.ranges)
        for binding in graph.bindings:
            lowering.visit(binding)
        mod = graph.rebuilt(lowering.rewriter)
        described = [json.dumps(launch) for launch in lowering.launches]
        mod.update_func(mod.get_global_var("main"), mod["main"].with_attr(LAUNCHES, described))
        return mod


def describe(
    kernel: str,
    ops_fused: list[str],
    layers: tuple[str, ...],
    shape: tuple[int, ...],
    layout: Layout,
    flops: int = 0,
    codes: Codes | None = None,
) -> dict[str, Any]:
    """Return what a launch computes: kernel, operators, sub-modules, its output's logical shape and how that is stored."""
    codes = codes or Codes()
    return {
        "kernel": kernel,
        "ops": ops_fused,
        "layers": list(layers),
        "shape": list(shape),
        "block": layout.block,
        "pad": layout.pad,
        "dtype": layout.dtype,
        "scale": codes.scale,
        "zero": codes.zero,
        "flops": flops,
    }


class _Lowering:
    def __init__(self, graph: Dataflow, unit: VectorUnit, choices: Choices, ranges: Ranges) -> None:
        self.graph = graph
        self.unit = unit
        self.choices = choices
        self.ranges = ranges
        self.codes: dict[relax.Expr, Codes] = {}
        self.rewriter = Rewriter()
        self.launches: list[dict[str, Any]] = []
        self._kernels: dict[Any, tvm.ir.GlobalVar] = {}

    def visit(self, binding: relax.VarBinding) -> None:
        if is_call(binding.value, "enet.fused_conv2d"):
            self._conv2d(binding)
        elif is_call(binding.value, "enet.initial_block"):
            self._initial_block(binding)
        elif isinstance(binding.value, relax.TupleGetItem):
            self.codes[binding.var] = self._codes(binding.value.tuple_value)
            self.rewriter.keep(binding)
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
        spec = replace(attrs, layers=())
        arguments = _Conv2DArguments(attrs, binding.value.args)
        own = self._codes_of(binding.var, attrs.out_layout, attrs.layers)
        if winograd.winograd_pays(spec, self.unit):
            fast = WinogradTemplate(spec, self.unit)
            transform = self.choices.point(fast)
            operands = arguments.winograd(transform)
            kernel = self._kernel((fast, transform), fast.name, lambda: fast.kernel(transform))
        elif attrs.out_layout.block:
            blocked = Conv2DTemplate(spec, self.unit)
            tile = self.choices.point(blocked)
            shortcut = Codes() if arguments.residual is None else self.codes.get(arguments.residual, Codes())
            operands = arguments.blocked(tile, self._codes(arguments.data), shortcut, own)
            kernel = self._kernel((blocked, tile), blocked.name, lambda: blocked.kernel(tile))
        else:
            template = PlanarTemplate(spec, self.unit)
            point = self.choices.point(template)
            operands = arguments.planar(self._codes(arguments.data))
            kernel = self._kernel((template, point), template.name, lambda: template.kernel(point))
        self._launch(binding, kernel, operands)
        flops = 2 * attrs.multiply_adds
        self.launches.append(
            describe(kernel.name_hint, attrs.operators, attrs.layers, attrs.out_shape, attrs.out_layout, flops, own)
        )

    def _codes(self, expr: relax.Expr) -> Codes:
        """Return what the codes of a tensor mean; of one without codes, the identity."""
        return self.codes.get(expr, Codes())

    def _codes_of(self, var: relax.Var, layout: Layout, layers: tuple[str, ...]) -> Codes:
        """Decide what the codes of a kernel's output mean, from the range that calibration saw."""
        if not layout.codes:
            return Codes()
        self.codes[var] = Codes.of(*self._range(layers[-1]))
        return self.codes[var]

    def _range(self, layer: str) -> tuple[float, float]:
        if layer not in self.ranges:
            raise UserError(f"the calibration has no range for layer '{layer}'; make it again with 'enet-tvm calibrate'")
        return self.ranges[layer]

    def _initial_block(self, binding: relax.VarBinding) -> None:
        attrs = ops.InitialBlockAttrs.from_call(binding.value)
        data, weight, bias, scale, shift, slope = binding.value.args
        n, c, h, w = (int(s) for s in data.ty.shape.values)
        shape = (n, c, h, w)
        layout = attrs.out_layout
        own = self._codes_of(binding.var, layout, attrs.layers)
        # Everything up to the activation is in units of the output's codes, where it has such.
        values, bias_values, scale_values, shift_values = (
            _known(v) / np.float32(own.scale) for v in (weight, bias, scale, shift)
        )
        full, biases = initial_block.initial_weight(values, scale_values), np.concatenate([bias_values, shift_values])
        channels = len(full)
        template = InitialBlockTemplate(shape, values.shape[0], layout, attrs.pool, self.unit)
        tile = self.choices.point(template)
        if layout.codes:
            coded, factors = quantise_weight(full, axis=0)
            picture = Codes.of(*self._range(INPUT))
            coding = np.array([1 / picture.scale, picture.rounding_zero], "float32")
            packed = to_words(initial_block.pack_initial_weight(coded, layout, tile))
            starts = zero_starts(coded.sum(axis=(1, 2), dtype=np.int64), picture.stored_zero(layout.dtype))
            sums = [factors * np.float32(picture.scale), starts, biases + _zero(own)]
            vectors = [coding, packed, *sums, _known(slope), _zero(own)]
        else:
            packed = _words(initial_block.pack_initial_weight(full, layout, tile), layout)
            vectors = [packed, biases, _known(slope)]
        kernel = self._kernel((template, tile), template.name, lambda: template.kernel(tile))
        self._launch(binding, kernel, [data, *map(constant, vectors)])
        fused = ["conv2d", "bias_add", "max_pool2d", "multiply", "add", "concat", "prelu"]
        out_shape = (shape[0], channels, shape[2] // 2, shape[3] // 2)
        flops = 2 * values.size * out_shape[0] * out_shape[2] * out_shape[3]
        self.launches.append(describe(kernel.name_hint, fused, attrs.layers, out_shape, layout, flops, own))

    def _pool(self, binding: relax.VarBinding) -> None:
        attrs, data = ops.MaxPool2DWithWindow.from_call(binding.value), binding.value.args[0]
        layout, out = attrs.data_layout, attrs.out_layout
        shape = layout.logical(tuple(int(s) for s in data.ty.shape.values))
        kernel = self._kernel(
            (shape, attrs), "max_pool2d_with_window", lambda: pooling.max_pool2d_with_window(shape, layout, out)
        )
        own = self.codes[binding.var] = self._codes(data)
        self._launch(binding, kernel, [data, *([constant(_zero(own))] if out.codes else [])])
        layers, out_shape = (layer_of(binding.var),), (*shape[:2], shape[2] // 2, shape[3] // 2)
        self.launches.append(describe(kernel.name_hint, ["max_pool2d_with_window"], layers, out_shape, out, codes=own))

    def _unpool(self, binding: relax.VarBinding) -> None:
        attrs = ops.MaxUnpool2D.from_call(binding.value)
        data, window = binding.value.args
        shape = attrs.data_layout.logical(tuple(int(s) for s in data.ty.shape.values))
        kernel = self._kernel(
            (shape, attrs),
            "max_unpool2d",
            lambda: pooling.max_unpool2d(shape, attrs.data_layout, attrs.output_size, attrs.out_layout),
        )
        own = self.codes[binding.var] = self._codes(data)
        self._launch(binding, kernel, [data, window, *([constant(_zero(own))] if attrs.out_layout.codes else [])])
        layers, out_shape = (layer_of(binding.var),), (*shape[:2], *attrs.output_size)
        self.launches.append(describe(kernel.name_hint, ["max_unpool2d"], layers, out_shape, attrs.out_layout, codes=own))


class _Conv2DArguments:
    """The arguments of a call of the fused convolution by name, and as its kernels take them."""

    def __init__(self, attrs: FusedConv2D, arguments: list[relax.Expr]) -> None:
        self.attrs = attrs
        self.data, weight, bias, *rest = arguments
        self.weight, self.bias = _known(weight), _known(bias)
        self.slopes = [rest.pop(0) for kind in (attrs.inner_activation, attrs.activation) if kind == "prelu"]
        self.residual: relax.Expr | None = rest[0] if rest else None
        self.shortcut = rest

    def planar(self, data: Codes) -> list[relax.Expr]:
        """Return the arguments of the kernel with NCHW output."""
        attrs = self.attrs
        if not attrs.data_layout.codes:
            packed = _words(planar.pack_planar_weight(self.weight, attrs), attrs.data_layout)
            return [self.data, *map(constant, (packed, self.bias)), *self.slopes]
        weight, scales, zero = self._coded(data)
        # Rows and columns outside the picture hold the code of zero here, so every sum starts alike.
        starts = zero_starts(conv2d.tap_sums(weight, attrs), zero)
        packed = to_words(planar.pack_planar_weight(weight, attrs))
        word = np.array([zero % 256 * 0x01010101], "uint32")
        return [self.data, *map(constant, (packed, scales, starts, self.bias)), *self.slopes, constant(word)]

    def winograd(self, tile: WinogradTile) -> list[relax.Expr]:
        """Return the arguments of the kernel by minimal filtering."""
        packed = winograd.pack_winograd_weight(self.weight, self.attrs, tile)
        return [self.data, *map(constant, (packed, self.bias)), *self.slopes]

    def _coded(self, data: Codes) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the weights as bytes, what each channel's sum is multiplied with, and the stored byte of the data's zero."""
        weight, scales = quantise_weight(self.weight, axis=1 if self.attrs.transposed else 0)
        return weight, scales * np.float32(data.scale), data.stored_zero(self.attrs.data_layout.dtype)

    def blocked(self, tile: RegisterTile, data: Codes, residual: Codes, own: Codes) -> list[relax.Expr]:
        """Return the arguments of the kernel with channel-blocked output.

        Activations commute with a positive factor, so bias, sums and shortcut are brought to units of the output's codes
        (`own`), and nothing is left to multiply when they are stored.
        """
        attrs, unit = self.attrs, np.float32(own.scale)
        bias, extra = self.bias / unit, list[np.ndarray]()
        if attrs.data_layout.codes:
            weight_codes, scales, zero = self._coded(data)
            extra = [scales / unit, zero_starts(conv2d.weight_sums(weight_codes, attrs), zero)]
            packed = to_words(conv2d.pack_weight(weight_codes, attrs, tile))
        else:
            packed = _words(conv2d.pack_weight(self.weight / unit, attrs, tile), attrs.data_layout)
        scaled: list[np.ndarray] = []
        if attrs.residual != "none" and (attrs.residual_layout.codes or attrs.out_layout.codes):
            scaled.append(np.array([residual.scale, residual.offset], "float32") / unit)
            if attrs.residual_layout.codes and conv2d.offset_in_bias(attrs):
                bias = bias + scaled[0][1]
        if attrs.out_layout.codes:
            scaled.append(_zero(own))
        if conv2d.zero_in_bias(attrs):
            bias = bias + _zero(own)
        return [self.data, *map(constant, (packed, *extra, bias)), *self.slopes, *map(constant, scaled), *self.shortcut]


def _words(packed: np.ndarray, data: Layout) -> np.ndarray:
    """Return packed weights in words of the data's elements, where those are no codes."""
    return to_words(bfloat16_bits(packed)) if data.dtype == "bfloat16" else packed


def _zero(codes: Codes) -> np.ndarray:
    return np.array([codes.rounding_zero], "float32")


def _known(expr: relax.Expr) -> np.ndarray:
    value = constant_value(expr)
    if value is None:
        raise ValueError("a convolution's weights must be constants")
    return value
