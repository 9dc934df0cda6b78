from __future__ import annotations

import pytest
import tvm
from tvm import relax
from tvm.relax import transform

from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window
from enet_tvm.compiler.passes import schedule_remaining_gpu
from enet_tvm.compiler.passes.schedule_remaining import SCHEDULED
from enet_tvm.compiler.passes.schedule_remaining_gpu import ScheduleRemainingGpu, has_threads
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target

BODIES = {
    "elementwise": lambda b, x: b.emit(relax.op.exp(x)),
    "reduction": lambda b, x: b.emit(relax.op.sum(x, axis=[2, 3])),
    "all of it": lambda b, x: b.emit(relax.op.sum(x)),
    "softmax": lambda b, x: b.emit(relax.op.nn.softmax(x, axis=1)),
    "a convolution in groups": lambda b, x: b.emit(
        relax.op.nn.conv2d(x, relax.op.ones((4, 1, 3, 3), "float32"), padding=1, groups=4)
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_function_gets_threads(relax_main, name: str):
    mod = transform.LegalizeOps()(relax_main(BODIES[name], (2, 4, 8, 10)))
    bare = [f for _, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    assert bare
    assert not any(map(has_threads, bare))
    with load_target("gtx-1080").to_tvm():
        scheduled = ScheduleRemainingGpu()(mod)
    functions = [f for _, f in scheduled.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    assert len(functions) >= len(bare)
    assert all(has_threads(f) and f.attrs[SCHEDULED] for f in functions)


def test_kernels_of_the_templates_stay_as_they_are():
    kernel = gpu_max_pool2d_with_window((1, 2, 8, 8)).with_attr("global_symbol", "pool")
    with load_target("gtx-1080").to_tvm():
        after = ScheduleRemainingGpu()(tvm.IRModule({"pool": kernel}))["pool"]
    tvm.ir.assert_structural_equal(after.body, kernel.body)


def test_what_no_rule_covers_is_said(relax_main, monkeypatch: pytest.MonkeyPatch):
    """Left alone, it would fail in the code generator, or run on one thread."""
    monkeypatch.setattr(schedule_remaining_gpu.dlight, "ApplyDefaultSchedule", lambda *rules: lambda mod: mod)
    mod = transform.LegalizeOps()(relax_main(BODIES["elementwise"], (2, 4, 8, 10)))
    with pytest.raises(UserError, match=r"^there is no way to run 'tir_exp' on a GPU; compile this network for a CPU$"):
        ScheduleRemainingGpu()(mod)
