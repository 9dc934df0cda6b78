"""Kernels on an emulated ARM processor: what of them is counted, and on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from enet_tvm.compiler.arm.cost import Cost, model_of
from enet_tvm.compiler.arm.simulation import Simulation, build_program
from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.targets import load_target
from enet_tvm.tuning.tasks import alone

pytestmark = [pytest.mark.emulated, pytest.mark.slow]

Simulate = Callable[..., Cost]


@pytest.fixture
def simulate(tmp_path: Path) -> Simulate:
    """Simulates a 1x1 convolution of 32 to 16 channels, 8 rows of 20 pixels, on so many threads."""
    try:
        tools = arm_tools()
    except UnavailableError as error:
        pytest.skip(str(error))

    def run(threads: int = 1, name: str = "rpi4", rows: int = 8) -> Cost:
        spec, target = load_target(name), load_target(name).to_tvm()
        blocked, shape = Layout(4), (1, 16, rows, 20)
        attrs = FusedConv2D((1, 32, rows, 20), shape, (1, 1), (1, 1), (0, 0), (1, 1), data_layout=blocked, out_layout=blocked)
        template = Conv2DTemplate(attrs, VectorUnit.of(target))

        simulation = Simulation(target, model_of(spec.mcpu), threads, tools, build_program(tmp_path))
        return simulation.cost(alone(template.kernel(template.default)), tmp_path)

    return run


def test_instructions_and_cycles_of_a_convolution(simulate: Simulate):
    """Four products an instruction, one a cycle on one unit and two on two; again, they are the same but for a wait or two."""
    multiply_adds = 8 * 20 * 16 * 32 / 4
    cost = simulate()
    assert 1.1 * multiply_adds < cost.instructions < 1.6 * multiply_adds
    assert multiply_adds < cost.cycles < 1.3 * multiply_adds
    again = simulate()
    assert (again.instructions, again.cycles) == pytest.approx((cost.instructions, cost.cycles), rel=3e-3)
    assert 0.5 * multiply_adds < simulate(name="rpi5").cycles < 0.8 * cost.cycles


def test_the_busiest_thread_is_counted(simulate: Simulate):
    """Of 8 rows, 3 threads get 3, 3 and 2."""
    one, three, many = simulate(), simulate(threads=3), simulate(threads=8)
    assert three.instructions == pytest.approx(3 / 8 * one.instructions, rel=0.05)
    assert many.instructions == pytest.approx(1 / 8 * one.instructions, rel=0.1)
    assert simulate(threads=4, rows=1).instructions == pytest.approx(many.instructions, rel=0.1)
