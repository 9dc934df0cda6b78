"""Choose how every tensor lies in memory: channel-blocked throughout, entered and left once.

TVM's ``ConvertLayout`` leaves a transpose around every PReLU (its slope is a constant of rank 3) and gives the
transposed convolution a layout that the code generator rejects. Here each operator of the `enet` dialect says what
it needs, and a producer also writes the zero columns that the convolution after it will read.
"""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call, is_result, variables
from enet_tvm.compiler.kernels.common.template import Templates
from enet_tvm.compiler.kernels.cpu.blocking import channel_block
from enet_tvm.compiler.kernels.cpu.conv2d import column_reach
from enet_tvm.compiler.kernels.cpu.downsampler import filters_of
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, Layout
from enet_tvm.compiler.ops.layout import DType


@tvm.ir.transform.module_pass(opt_level=0, name="BlockLayout")
class BlockLayout:
    """Give each tensor between operators of the `enet` dialect a blocked layout; other operators see NCHW.

    Parameters
    ----------
    templates : Templates
        Templates of the CPU, which say which layouts they can write.
    dtype : {"float32", "float16", "bfloat16", "uint8", "int8"}
        Type of the elements of tensors that only the templates' kernels read; others stay float32.
    """

    def __init__(self, templates: Templates, dtype: DType = "float32") -> None:
        self.templates = templates
        self.dtype = dtype

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with layouts chosen and ``enet.pack`` / ``enet.unpack`` where they change."""
        graph = Dataflow(mod)
        wide: set[relax.Var] = set()
        while True:
            try:
                return _Assignment(graph, self.templates, self.dtype, wide).run()
            except _ReadOutsideError as found:
                wide.update(found.tensors)


class _ReadOutsideError(Exception):
    """A tensor of codes is read by something that does not know what they mean."""

    def __init__(self, tensors: set[relax.Var]) -> None:
        super().__init__()
        self.tensors = tensors


class _Assignment:
    def __init__(self, graph: Dataflow, templates: Templates, dtype: DType, wide: set[relax.Var]) -> None:
        self.graph = graph
        self.templates = templates
        self.lanes: int = templates.unit.lanes
        self.dtype = dtype
        self.wide = wide
        self.rewriter = Rewriter()
        self.layouts: dict[relax.Var, Layout] = {}
        self.pads: dict[relax.Var, int] = {}
        self.pooled: dict[relax.Var, Layout] = {}
        self.converted: dict[relax.Expr, list[tuple[Layout, relax.Var]]] = {}
        self.forms: dict[relax.Var, ops.InitialBlockAttrs] = {}
        for binding in graph.bindings:
            if is_call(binding.value, "enet.fused_conv2d"):
                data, reach = binding.value.args[0], column_reach(FusedConv2D.from_call(binding.value))
                self.pads[data] = max(self.pads.get(data, 0), reach)
            elif is_call(binding.value, "enet.initial_block"):
                data, form = binding.value.args[0], templates.covered_forms(ops.InitialBlockAttrs.from_call(binding.value))[0]
                self.forms[binding.var] = form
                if form.data_layout.block:
                    self.pads[data] = max(self.pads.get(data, 0), column_reach(filters_of(form)))

    def run(self) -> tvm.IRModule:
        for binding in self.graph.bindings:
            value = binding.value
            if is_call(value, "enet.fused_conv2d"):
                self._conv2d(binding)
            elif is_call(value, "enet.initial_block"):
                self._initial_block(binding)
            elif is_call(value, "enet.max_pool2d_with_window") and self._pools_blocked(binding):
                self._pool(binding)
            elif isinstance(value, relax.TupleGetItem) and value.tuple_value in self.pooled:
                maxima = self.pooled[value.tuple_value]
                self._bind(binding, self.rewriter.mapped(value), maxima.window() if value.index else maxima)
            elif is_call(value, "enet.max_unpool2d") and value.args[0] in self.layouts:
                self._unpool(binding)
            else:
                self._foreign(binding)
        for var in dict.fromkeys(variables(self.graph.result)):
            if var not in self.layouts:
                continue
            self._must_be_wide(var, self.layouts[var])
            plain = ops.unpack(self.rewriter.mapped(var), self.layouts[var])
            self.rewriter.replace(var, self.rewriter.emit(plain, var, f"{var.name}#nchw"))
        return self.graph.rebuilt(self.rewriter)

    def _bind(self, binding: relax.VarBinding, value: relax.Expr, layout: Layout) -> None:
        self.rewriter.replace(binding.var, self.rewriter.emit(value, binding.var))
        if layout != PLANAR:
            self.layouts[binding.var] = layout

    def _chosen(self, var: relax.Var, block: int) -> Layout:
        """Return how a tensor that a kernel writes lies in memory."""
        layout = Layout(block, self.pads.get(var, 0), self.dtype)
        return replace(layout, dtype="float32") if var in self.wide or block % layout.per_word else layout

    def _must_be_wide(self, var: relax.Expr, layout: Layout) -> None:
        """Start again with float32 for a tensor that turns out to be read outside the templates' kernels."""
        if not layout.codes:
            return
        tensors: set[relax.Var] = set()
        while isinstance(var, relax.Var):
            # Poolings pass codes through: what they read must be float32 too.
            tensors.add(var)
            value = self.graph.value(var)
            passes = (
                isinstance(value, relax.TupleGetItem)
                or is_call(value, "enet.max_unpool2d")
                or is_call(value, "enet.max_pool2d_with_window")
            )
            var = next(variables(value)) if passes and value is not None else None
        raise _ReadOutsideError(tensors)

    def _conv2d(self, binding: relax.VarBinding) -> None:
        attrs = FusedConv2D.from_call(binding.value)
        data, weight, bias, *rest = binding.value.args
        layouts = [form.out_layout for form in self.templates.covered_forms(attrs)]
        planar = PLANAR in layouts and (self._leaves(binding.var) or len(layouts) == 1)
        out = PLANAR if planar else self._chosen(binding.var, layouts[0].block)
        slopes = [rest.pop(0) for kind in (attrs.inner_activation, attrs.activation) if kind == "prelu"]
        block = channel_block(attrs.data_shape[1], self.lanes) or 1
        data, data_layout = self._stored(data, Layout(block, self.pads[data]), exact=False)
        attrs = replace(attrs, data_layout=data_layout, out_layout=out)
        if rest:
            residual, residual_layout = self._stored(rest[0], Layout(out.block), exact=False)
            windows = [self._stored(window, Layout(out.block), exact=True)[0] for window in rest[1:]]
            attrs, rest = replace(attrs, residual_layout=residual_layout), [residual, *windows]
        self._bind(binding, relax.Call(binding.value.op, [data, weight, bias, *slopes, *rest], attrs.to_attrs()), out)

    def _initial_block(self, binding: relax.VarBinding) -> None:
        attrs = self.forms[binding.var]
        data, weight, *vectors = binding.value.args
        layout = self._chosen(binding.var, attrs.out_layout.block)
        if attrs.data_layout.block:
            data, inner = self._stored(data, replace(attrs.data_layout, pad=self.pads[data]), exact=False)
        else:
            if layout.codes and not self._has_range(data):
                layout = replace(layout, dtype="float32")
            data, inner = self._stored(data, PLANAR, exact=True)
        attrs = replace(attrs, data_layout=inner, out_layout=layout)
        self._bind(binding, ops.initial_block(attrs, data, weight, *vectors), layout)

    def _has_range(self, var: relax.Var) -> bool:
        """Whether calibration knows the values of a planar tensor: the network's input, or what a template's kernel writes."""
        value = self.graph.value(var)
        return value is None or is_call(value, "enet.fused_conv2d") or is_call(value, "enet.initial_block")

    def _pools_blocked(self, binding: relax.VarBinding) -> bool:
        taken_apart = all(isinstance(value, relax.TupleGetItem) for value in self._readers(binding.var))
        return binding.value.args[0] in self.layouts and taken_apart and not is_result(self.graph, binding.var)

    def _readers(self, var: relax.Var) -> list[relax.Expr]:
        return [self.graph.producer[user] for user in self.graph.users.get(var, [])]

    def _pool(self, binding: relax.VarBinding) -> None:
        data = binding.value.args[0]
        layout = self.layouts[data]
        pads = [
            self.pads.get(user, 0) for user in self.graph.users.get(binding.var, []) if self.graph.producer[user].index == 0
        ]
        out = replace(layout, pad=max(pads, default=0))
        self.pooled[binding.var] = out
        self._bind(binding, ops.max_pool2d_with_window(self.rewriter.mapped(data), layout, out), PLANAR)

    def _unpool(self, binding: relax.VarBinding) -> None:
        data, window = binding.value.args
        block = self.layouts[data].block
        stored, layout = self._stored(data, Layout(block), exact=False)
        indices, _ = self._stored(window, Layout(block), exact=True)
        out = replace(layout, pad=self.pads.get(binding.var, 0))
        size = ops.MaxUnpool2D.from_call(binding.value).output_size
        self._bind(binding, ops.max_unpool2d(stored, indices, size, layout, out), out)

    def _foreign(self, binding: relax.VarBinding) -> None:
        """Keep an operator of TVM's, which knows NCHW only."""
        blocked = {var: self.rewriter.mapped(var) for var in self.graph.reads(binding) if var in self.layouts}
        for var in blocked:
            self.rewriter.replace(var, self._stored(var, PLANAR, exact=True)[0])
        self.rewriter.keep(binding)
        for var, value in blocked.items():
            self.rewriter.replace(var, value)

    def _stored(self, var: relax.Expr, wanted: Layout, *, exact: bool) -> tuple[relax.Expr, Layout]:
        """Return `var` and its layout, converted if it is not as wanted; a wider padding will do unless `exact`."""
        forms = [(self.layouts.get(var, PLANAR), self.rewriter.mapped(var)), *self.converted.get(var, [])]
        for have, value in forms:
            if have == wanted or (not exact and have.block == wanted.block and have.pad >= wanted.pad):
                return value, have
        have, value = forms[0]
        inner = self.graph.bindings[0].var if not isinstance(var, relax.DataflowVar) else var
        name = getattr(var, "name", "constant")
        if have != PLANAR:
            self._must_be_wide(var, have)
            value = self.rewriter.emit(ops.unpack(value, have), inner, f"{name}#nchw")
        if wanted != PLANAR:
            value = self.rewriter.emit(ops.pack(value, wanted), inner, f"{name}#packed")
        self.converted.setdefault(var, []).append((wanted, value))
        return value, wanted

    def _leaves(self, var: relax.Var) -> bool:
        """Whether nothing of the `enet` dialect reads `var`: then it had better be NCHW at once."""
        users = self.graph.users.get(var, [])
        inside = ("enet.fused_conv2d", "enet.initial_block", "enet.max_pool2d_with_window", "enet.max_unpool2d")
        return is_result(self.graph, var) or not any(is_call(self.graph.value(u), name) for u in users for name in inside)
