"""The function that is one graph: which launches are in it, and what it writes, as far as a processor can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax
from tvm.relax import transform

from enet_tvm.artifact import FRAME_FUNCTION
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.passes.add_frame import AddFrame
from enet_tvm.compiler.pipeline import Numerics, gpu_phases, launches_of, machine_phase
from enet_tvm.networks import ENet
from enet_tvm.targets import load_target


def kernels_of(function: relax.Function, mod: tvm.IRModule) -> list[str]:
    """Return the names of the kernels that a function calls, in order."""
    calls = [binding.value for block in function.body.blocks for binding in block.bindings]
    called = [call.op for call in calls if isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.GlobalVar)]
    return [name.name_hint for name in called if isinstance(mod[name], tvm.tirx.PrimFunc)]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True], ids=["logits", "labels"])
def test_every_launch_of_enet_is_in_the_graph(randomised, labels: bool):
    """All of them, where TVM's own way leaves the first and the last out; and no other function is captured."""
    mod = from_torch(randomised(ENet(11)), (1, 3, 48, 64))
    with load_target("jetson-tx1").to_tvm():
        phases = gpu_phases(GpuUnit(2, 80), numerics=Numerics(labels=labels))
        for phase in phases:
            mod = tvm.transform.Sequential(phase.passes)(mod)
        launches = [launch.kernel for launch in launches_of(mod, phases)]
        mod = tvm.transform.Sequential(machine_phase(frame=True).passes)(mod)
    functions = {name.name_hint: f for name, f in mod.functions_items() if isinstance(f, relax.Function)}
    assert set(functions) == {"main", FRAME_FUNCTION, "cuda_graph_alloc", f"{FRAME_FUNCTION}_cuda_graph_capture"}
    assert kernels_of(functions["main"], mod) == launches
    assert kernels_of(functions[FRAME_FUNCTION], mod) == []
    assert kernels_of(functions[f"{FRAME_FUNCTION}_cuda_graph_capture"], mod) == launches
    assert "cuda_graph" not in functions["main"].script()


def test_it_writes_into_the_callers_tensor(network_of: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch):
    """On a processor, where nothing is captured: what it computes is what `main` does, each call anew."""
    network = network_of(
        lambda net, x: net.last(torch.relu(net.first(x))), first=nn.Conv2d(3, 4, 3, padding=1), last=nn.Conv2d(4, 2, 1)
    )
    monkeypatch.setattr(transform, "RewriteCUDAGraph", lambda: tvm.transform.Sequential([]))
    passes: list[Any] = [transform.LegalizeOps(), *machine_phase(frame=True).passes]
    assert any(isinstance(each, type(AddFrame())) for each in passes)
    with tvm.target.Target("llvm") as target:
        mod = tvm.transform.Sequential(passes)(from_torch(network, (1, 3, 6, 8)))
        executable = tvm.compile(mod, target, relax_pipeline=None)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    output = tvm.runtime.tensor(np.full((1, 2, 6, 8), np.nan, np.float32))
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((1, 3, 6, 8), np.float32)
        returned = machine[FRAME_FUNCTION](tvm.runtime.tensor(x), output)
        assert len(returned) == 0
        np.testing.assert_array_equal(output.numpy(), machine["main"](tvm.runtime.tensor(x)).numpy())


def test_a_network_that_computes_nothing_has_none(relax_main):
    mod = tvm.transform.Sequential([transform.ToNonDataflow(), transform.CallTIRRewrite(), AddFrame()])(
        relax_main(lambda builder, x: x, (1, 3, 4, 4))
    )
    assert [name.name_hint for name in mod.get_global_vars()] == ["main"]
