"""Store what one kernel of a GPU hands on to another as float16, whatever each computes in."""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, Rewriter, is_call, is_result
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.gpu.half_storage import with_half_storage
from enet_tvm.compiler.passes.lower_kernels import LowerKernels, footprint


@tvm.ir.transform.module_pass(opt_level=0, name="HalveTensors")
class HalveTensors:
    """Make those float32 tensors float16 that kernels of the templates write and only such kernels read.

    The network's input and output, and what operators without a template read or write, stay float32.

    Parameters
    ----------
    lowering : LowerKernels
        The pass that made the kernels, the one before this.

    Attributes
    ----------
    launches : list of Launch
        Kernel launches of the module that was transformed last, in order.
    """

    def __init__(self, lowering: LowerKernels) -> None:
        self._lowering = lowering
        self.launches: list[Launch] = []

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with shorter tensors."""
        halving = _Halving(mod, self._lowering.launches)
        for binding in halving.graph.bindings:
            halving.visit(binding)
        self.launches = halving.launches
        return halving.graph.rebuilt(halving.rewriter)


class _Halving:
    def __init__(self, mod: tvm.IRModule, launches: list[Launch]) -> None:
        self.mod = mod
        self.graph = Dataflow(mod)
        self.rewriter = Rewriter()
        self.launches: list[Launch] = []
        self._given = iter(launches)
        self._kernels: dict[tuple[str, frozenset[int]], tvm.ir.GlobalVar] = {}

    def visit(self, binding: relax.VarBinding) -> None:
        """Emit a binding; a launch with its shorter tensors."""
        if is_call(binding.value, "relax.call_tir"):
            self._launch(binding)
        else:
            self.rewriter.keep(binding)

    def _launch(self, binding: relax.VarBinding) -> None:
        launch = next(self._given)
        arguments = list(binding.value.args[1].fields)
        outs = list(binding.var.ty.fields) if isinstance(binding.var.ty, relax.TupleType) else [binding.var.ty]
        read = {place for place, argument in enumerate(arguments) if self._is_short(argument)}
        written = {
            place for place, var in enumerate(self._results(binding.var, len(outs))) if var is not None and self._is_short(var)
        }
        places = frozenset(read | {len(arguments) + place for place in written})
        if not places:
            self.rewriter.keep(binding)
            self.launches.append(launch)
            return
        outs = [relax.TensorType(out.shape, "float16") if place in written else out for place, out in enumerate(outs)]
        operands = [self.rewriter.mapped(argument) for argument in arguments]
        kernel = self._kernel(launch.kernel, places)
        call = relax.op.call_tir(kernel, operands, outs if len(outs) > 1 else outs[0])
        self.rewriter.replace(binding.var, self.rewriter.emit(call, binding.var))
        layout = replace(launch.layout, dtype="float16") if 0 in written else launch.layout
        size = footprint([operand.ty for operand in operands], outs)[1]
        self.launches.append(replace(launch, kernel=kernel.name_hint, bytes=size, layout=layout, halves=places))

    def _kernel(self, name: str, places: frozenset[int]) -> tvm.ir.GlobalVar:
        if (name, places) not in self._kernels:
            made = with_half_storage(self.mod[name], places)
            self._kernels[name, places] = self.rewriter.add_kernel(made, f"{name}_float16")
        return self._kernels[name, places]

    def _results(self, var: relax.Var, count: int) -> list[relax.Var | None]:
        """Return the variables of a launch's outputs; None for one that nothing takes."""
        if count == 1:
            return [var]
        found: list[relax.Var | None] = [None] * count
        for user in self.graph.users.get(var, []):
            item = self.graph.value(user)
            if isinstance(item, relax.TupleGetItem):
                found[item.index] = user
        return found

    def _is_short(self, tensor: relax.Expr) -> bool:
        """Whether kernels alone write and read a tensor of float32."""
        if not isinstance(tensor, relax.Var) or is_result(self.graph, tensor) or str(tensor.ty.dtype) != "float32":
            return False
        made = self.graph.value(tensor)
        if isinstance(made, relax.TupleGetItem):
            made = self.graph.value(made.tuple_value)
        readers = [self.graph.value(user) for user in self.graph.users.get(tensor, [])]
        return all(is_call(call, "relax.call_tir") for call in [made, *readers])
