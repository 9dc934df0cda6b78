"""Give a GPU's network a second function whose launches are one CUDA graph: ``frame(input, output)``."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform
from tvm.relax.utils import copy_with_new_vars

from enet_tvm.artifact import FRAME_FUNCTION


@tvm.ir.transform.module_pass(opt_level=0, name="AddFrame")
class AddFrame:
    """Add to ``main`` its twin ``frame``, which writes into a tensor of the caller's, and replays a captured graph.

    TVM captures what depends on memory of its own alone: of ``main`` all launches but the first, which reads the caller's
    input, and the last, which writes a new output. ``frame`` takes both as arguments that are always the same memory, and so
    all its launches are one graph. Whoever calls it, on one virtual machine, keeps to the tensors of the first call: a graph
    holds addresses. ``main`` stays for those who do not, and for watching kernel by kernel.

    It runs after memory was planned. A network whose result is no kernel's output, such as its input, gets no ``frame``.
    """

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with both functions."""
        frame = _writing_into_argument(copy_with_new_vars(mod["main"]))
        if frame is None:
            return mod
        kernels = {name: f for name, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}
        with tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": True}):
            captured = transform.RewriteCUDAGraph()(tvm.IRModule({**kernels, relax.GlobalVar(FRAME_FUNCTION): frame}))
        both = mod.clone()
        for name, function in captured.functions_items():
            if isinstance(function, relax.Function):
                both[name] = function
        return both


def _writing_into_argument(function: relax.Function) -> relax.Function | None:
    """Return a function that takes the tensor of its result as its last argument; None where it allocates none for it."""
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    values = {binding.var: binding.value for binding in bindings}
    result = function.body.body
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    call = values.get(result)
    if not isinstance(call, relax.Call) or str(getattr(call.op, "name", "")) != "relax.builtin.alloc_tensor":
        return None
    # The variable of the allocation becomes the argument. Of the result nothing is returned: over RPC a tensor that is an
    # argument is lent for the call alone. But a graph must give something out that is taken afterwards: TVM's machine fails at
    # the end of one whose result nobody takes. So a constant inside is passed to a function outside, which does nothing.
    rest = [binding for binding in bindings if not binding.var.same_as(result)]
    nothing = relax.const(0, "float32")
    inside, outside = relax.Var("inside", nothing.ty), relax.Var("outside", nothing.ty)
    passed = relax.Call(relax.ExternFunc("vm.builtin.copy"), [inside], ty_args=[nothing.ty])
    ends = [relax.VarBinding(inside, nothing), relax.VarBinding(outside, passed)]
    body = relax.SeqExpr([relax.BindingBlock([*rest, *ends])], relax.Tuple([]))
    made = relax.Function([*function.params, result], body, relax.TupleType([]), function.is_pure, function.attrs)
    # All arguments stay where they are from call to call: none of them is an input that moves.
    return made.without_attr("global_symbol").with_attr("num_input", 0)
