"""Reading and rebuilding the one dataflow block of `main`, keeping the variables' names.

TVM's own mutators rename what they emit again; here a variable's name says which layer of the network its value
is (``frontend``), and the artifact's kernel list, the profile and the parity bisection rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call


def constant(value: np.ndarray) -> relax.Constant:
    """Return an array as a Relax constant of the same dtype."""
    return relax.const(np.ascontiguousarray(value), str(value.dtype))


def constant_value(expr: relax.Expr) -> np.ndarray | None:
    """Return a constant's value, None when `expr` is not a constant tensor."""
    value = getattr(expr, "value", None)
    return value.numpy() if isinstance(value, tvm.runtime.Tensor) else None


def is_call(expr: Any, name: str) -> TypeGuard[Any]:
    """Whether `expr` is a call of the operator called `name`."""
    return isinstance(expr, Call) and isinstance(expr.op, tvm.ir.Op) and expr.op.name == name


def layer_of(var: relax.Var) -> str:
    """Return the layer whose value a variable is: its name, less the mark of an intermediate value."""
    return str(var.name).partition("#")[0]


class Dataflow:
    """The bindings of ``main`` in program order, with the value and the users of each variable.

    Parameters
    ----------
    mod : tvm.IRModule
        Module whose ``main`` is one dataflow block.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.function = mod["main"]
        blocks = self.function.body.blocks
        if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
            raise ValueError("main is expected to be one dataflow block")
        self.bindings: list[relax.VarBinding] = list(blocks[0].bindings)
        self.result: relax.Expr = self.function.body.body
        self.producer: dict[relax.Var, relax.Expr] = {b.var: b.value for b in self.bindings}
        self.users: dict[relax.Var, list[relax.Var]] = {}
        for binding in self.bindings:
            for used in variables(binding.value):
                self.users.setdefault(used, []).append(binding.var)

    def value(self, expr: relax.Expr) -> relax.Expr | None:
        """Return what a variable is bound to; `expr` itself when it is no variable; None for an input."""
        return self.producer.get(expr) if isinstance(expr, relax.Var) else expr

    def reads(self, binding: relax.VarBinding) -> list[relax.Var]:
        """Return the variables that a binding's value reads."""
        return list(variables(binding.value))

    def only_user(self, var: relax.Var) -> relax.Var | None:
        """Return the one variable computed from `var`, None when there are several or none."""
        users = self.users.get(var, [])
        return users[0] if len(users) == 1 and not is_result(self, var) else None

    def is_taken_apart(self, var: relax.Var, name: str) -> bool:
        """Whether `var` is the tuple that an operator called `name` returns, and nothing but its parts is read."""
        items = all(isinstance(self.value(user), relax.TupleGetItem) for user in self.users.get(var, []))
        return is_call(self.value(var), name) and items and not is_result(self, var)

    def rebuilt(self, rewriter: Rewriter, result: relax.Expr | None = None) -> tvm.IRModule:
        """Return the module with `main` made of those of the rewriter's bindings that its result needs."""
        result = rewriter.mapped(self.result) if result is None else result
        body = relax.SeqExpr([relax.DataflowBlock(_live(rewriter.bindings, result))], result)
        function = relax.Function(self.function.params, body, result.ty, is_pure=True, attrs=self.function.attrs)
        mod = self.mod.clone()
        mod.update_func(mod.get_global_var("main"), function)
        for name, kernel in rewriter.kernels.functions_items():
            mod.update_func(name, kernel)
        return mod


def is_result(graph: Dataflow, var: relax.Var) -> bool:
    """Whether `var` is, or is part of, what main returns."""
    return var in set(variables(graph.result))


def variables(expr: relax.Expr) -> Iterator[relax.Var]:
    """Yield the variables an expression reads, each time it does."""
    if isinstance(expr, relax.Var):
        yield expr
    elif isinstance(expr, Call):
        for argument in expr.args:
            yield from variables(argument)
    elif isinstance(expr, relax.Tuple):
        for item in expr.fields:
            yield from variables(item)
    elif isinstance(expr, relax.TupleGetItem):
        yield from variables(expr.tuple_value)


def _live(bindings: list[relax.VarBinding], result: relax.Expr) -> list[relax.VarBinding]:
    """Return the bindings that `result` depends on, in order."""
    needed = set(variables(result))
    kept = []
    for binding in reversed(bindings):
        if binding.var in needed:
            kept.append(binding)
            needed.update(variables(binding.value))
    return kept[::-1]


class Rewriter:
    """Collects the new bindings of ``main`` and remembers what became of the old variables."""

    def __init__(self) -> None:
        self.bindings: list[relax.VarBinding] = []
        self._builder = relax.BlockBuilder()
        self._mapping: dict[relax.Var, relax.Expr] = {}

    @property
    def kernels(self) -> tvm.IRModule:
        """The functions added so far."""
        return self._builder.get()

    def add_kernel(self, kernel: tvm.tirx.PrimFunc, name: str) -> tvm.ir.GlobalVar:
        """Add a function under a name made unique; adding an equal one again returns the first."""
        return self._builder.add_func(kernel, name)

    def emit(self, value: relax.Expr, like: relax.Var, name: str | None = None) -> relax.Var:
        """Bind `value` to a variable named `name`, or as `like`, an output when `like` is one."""
        value = self._builder.normalize(value)
        make = relax.DataflowVar if isinstance(like, relax.DataflowVar) else relax.Var
        var = make(name or like.name, value.ty)
        self.bindings.append(relax.VarBinding(var, value))
        return var

    def replace(self, old: relax.Var, new: relax.Expr) -> None:
        """Make `new` stand for `old` from here on."""
        self._mapping[old] = new

    def keep(self, binding: relax.VarBinding) -> relax.Var:
        """Emit a binding as it is, its variables mapped."""
        new = self.emit(self.mapped(binding.value), binding.var)
        self.replace(binding.var, new)
        return new

    def mapped(self, expr: relax.Expr) -> relax.Expr:
        """Return `expr` with every replaced variable substituted."""
        if isinstance(expr, relax.Var):
            return self._mapping.get(expr, expr)
        if isinstance(expr, Call):
            return Call(expr.op, [self.mapped(a) for a in expr.args], expr.attrs, expr.ty_args)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.mapped(item) for item in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.mapped(expr.tuple_value), expr.index)
        return expr
