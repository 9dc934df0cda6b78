"""Lower the `enet` dialect to calls of generated kernels, with constant weights packed as they are read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, layer_of
from enet_tvm.compiler.kernels.common.choices import DEFAULTS, Choices
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.common.template import OnlyPoint, Template, Templates
from enet_tvm.compiler.ops import Spec, passes_codes, spec_of
from enet_tvm.compiler.quantisation.codes import IDENTITY, Ranges


@tvm.ir.transform.module_pass(opt_level=0, name="LowerKernels")
class LowerKernels:
    """Replace each operator of the `enet` dialect by ``call_tir`` of a kernel; equal kernels are made once.

    What no template covers stays as it is, to be legalised. So do the conversions between layouts.

    Parameters
    ----------
    templates : Templates
        Templates of the device, of which the first that covers a call makes its kernel.
    choices : Choices
        Choice of the point to make each template's kernel at.
    ranges : mapping
        Layer -> least and largest value of its output; needed for outputs that are stored as codes, and for tensors that
        kernels make codes of themselves.

    Attributes
    ----------
    launches : list of Launch
        Kernel launches of the module that was transformed last, in order.
    """

    def __init__(self, templates: Templates, choices: Choices = DEFAULTS, ranges: Ranges | None = None) -> None:
        self.templates = templates
        self.choices = choices
        self.ranges = ranges or {}
        self.launches: list[Launch] = []

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with kernels."""
        graph = Dataflow(mod)
        lowering = _Lowering(self.templates, self.choices, TensorCodes(graph.function.params, self.ranges))
        for binding in graph.bindings:
            lowering.visit(binding)
        self.launches = lowering.launches
        return graph.rebuilt(lowering.rewriter)


class _Lowering:
    def __init__(self, templates: Templates, choices: Choices, codes: TensorCodes) -> None:
        self.templates = templates
        self.choices = choices
        self.codes = codes
        self.rewriter = Rewriter()
        self.launches: list[Launch] = []
        self._kernels: dict[tuple[Template, Any], tvm.ir.GlobalVar] = {}

    def visit(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if isinstance(value, relax.TupleGetItem):
            self.codes.note(binding.var, self.codes.stored(value.tuple_value))
        spec = spec_of(value)
        template = self.templates.find(spec)
        if template is None:
            self.rewriter.keep(binding)
        else:
            self._launch(binding, spec, template)

    def _launch(self, binding: relax.VarBinding, spec: Spec, template: Template) -> None:
        arguments = list(binding.value.args)
        layers = spec.layers or (layer_of(binding.var),)
        own = IDENTITY
        if spec.out_layout.codes:
            own = self.codes.stored(arguments[0]) if passes_codes(binding.value) else self.codes.of_layer(layers[-1])
            self.codes.note(binding.var, own)
        point = OnlyPoint() if template.point_type is OnlyPoint else self.choices.point(template)
        operands = [self.rewriter.mapped(o) for o in template.operands(point, arguments, self.codes, own)]
        kernel = self._kernel(template, point)
        outs = list(binding.var.ty.fields) if isinstance(binding.var.ty, relax.TupleType) else [binding.var.ty]
        call = relax.op.call_tir(kernel, operands, outs if len(outs) > 1 else outs[0])
        self.rewriter.replace(binding.var, self.rewriter.emit(call, binding.var))
        self.launches.append(
            Launch(
                kernel.name_hint,
                tuple(spec.operators),
                layers,
                *footprint([operand.ty for operand in operands], outs),
                layout=spec.out_layout,
                codes=own,
                flops=2 * spec.multiply_adds,
                template=template,
                point=point,
            )
        )

    def _kernel(self, template: Template, point: Any) -> tvm.ir.GlobalVar:
        key = (template, point)
        if key not in self._kernels:
            self._kernels[key] = self.rewriter.add_kernel(template.kernel(point), template.name)
        return self._kernels[key]


def footprint(inputs: list[relax.TensorType], outputs: list[relax.TensorType]) -> tuple[tuple[int, ...], int]:
    """Return the shape of a kernel's first output, and the bytes of all its tensors."""
    size = sum(math.prod(map(int, kind.shape.values)) * np.dtype(str(kind.dtype)).itemsize for kind in [*inputs, *outputs])
    return tuple(int(extent) for extent in outputs[0].shape.values), size
