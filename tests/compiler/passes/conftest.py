from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn

from enet_tvm.compiler.dataflow import Dataflow, is_call
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.lower_kernels import LowerKernels
from enet_tvm.networks import ENet

UNIT = VectorUnit(lanes=16, registers=32)
TEMPLATES = cpu_templates(UNIT)


@pytest.fixture(scope="session")
def operators() -> Callable[[tvm.IRModule], list[str]]:
    """Makes ``operators(mod)`` the names of main's operators, in order, without their dialects."""

    def names(mod: tvm.IRModule) -> list[str]:
        calls = [binding.value for binding in Dataflow(mod).bindings if isinstance(binding.value, tvm.ir.Call)]
        return [call.op.name.rpartition(".")[2] for call in calls]

    return names


@pytest.fixture(scope="session")
def fused() -> Callable[[tvm.IRModule], list[FusedConv2D]]:
    """Makes ``fused(mod)`` the attributes of main's fused convolutions, in order."""

    def attributes(mod: tvm.IRModule) -> list[FusedConv2D]:
        values = [binding.value for binding in Dataflow(mod).bindings]
        return [FusedConv2D.from_call(value) for value in values if is_call(value, "enet.fused_conv2d")]

    return attributes


@pytest.fixture(scope="session")
def transformed(run_relax) -> Callable[..., tvm.IRModule]:
    """Makes ``transformed(network, shape, *passes)`` the module after the passes, once it computes what PyTorch does.

    PyTorch's part is in double precision; the difference may be a few units of the last place of the largest value.
    """

    def transform(
        network: nn.Module, shape: tuple[int, int, int, int], *passes: Any, unit: VectorUnit = UNIT, atol: float = 3e-6
    ) -> tvm.IRModule:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = copy.deepcopy(network).double()(x.double())
        mod = tvm.transform.Sequential(passes)(from_torch(network, shape))
        templates = cpu_templates(unit)
        rest = [] if any(isinstance(p, LowerKernels) for p in passes) else [BlockLayout(templates), LowerKernels(templates)]
        if any(isinstance(p, BlockLayout) for p in passes):
            rest = rest[1:]
        actual = run_relax(mod, x.numpy(), passes=rest)
        several = isinstance(actual, tuple)
        for ours, theirs in zip(actual if several else [actual], expected if several else [expected], strict=True):
            assert ours.shape == tuple(theirs.shape)
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=atol * float(theirs.abs().max()))
        return mod

    return transform


@pytest.fixture(scope="session")
def fused_enet(randomised) -> tvm.IRModule:
    """ENet of four classes for 48x32, after all passes that do not depend on the target."""
    mod = from_torch(randomised(ENet(4)), (1, 3, 32, 48))
    return tvm.transform.Sequential([FoldBatchNorm(), FuseInitialBlock(TEMPLATES), FuseConv2D(TEMPLATES)])(mod)
