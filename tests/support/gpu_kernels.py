"""A GPU template's kernels on fibers, compared with what PyTorch makes of the same arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cuda_fibers import compile_fibers
from cuda_network import block_accesses, kernel_source, launch_extents
from warp_accesses import Traffic, traffic

from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.quantisation.codes import IDENTITY


class Call(Protocol):
    """Arguments of a kernel, and what it is to compute of them."""

    @property
    def expected(self) -> Mapping[str, np.ndarray]:
        """Outputs by PyTorch, by name."""
        ...

    def arrays(self, template: Any, point: Any) -> dict[str, np.ndarray]:
        """Return the kernel's arrays by name: inputs, operands packed for a point, and outputs."""
        ...


def kernel_arrays(
    template: Any, point: Any, arguments: Sequence[np.ndarray], expected: Mapping[str, np.ndarray], unwritten: float
) -> dict[str, np.ndarray]:
    """Return the arrays of a template's kernel at a point, by name: operands, and outputs that are not yet written."""
    operands = template.operands(point, [constant(each) for each in arguments], TensorCodes([], {}), IDENTITY)
    outputs = [np.full_like(value, unwritten if value.dtype == np.float32 else 255) for value in expected.values()]
    arrays = {}
    for parameter, value in zip(template.kernel(point).params, [*map(constant_value, operands), *outputs], strict=True):
        assert tuple(int(n) for n in parameter.ty.shape) == value.shape, parameter.name
        arrays[str(parameter.name)] = value
    return arrays


def check_default(template: Any, call: Call, folder: Path) -> Traffic:
    """Run the kernel of a template's default point, and return the accesses to memory of one of its blocks."""
    point = template.default
    kernel = template.kernel(point)
    program = compile_fibers(kernel_source(kernel), folder)
    after = program.launch("main_kernel", *launch_extents(kernel), call.arrays(template, point))
    for output, expected in call.expected.items():
        np.testing.assert_array_equal(after[output], expected)
    return traffic(block_accesses(program, "main", kernel))


def check_every_point(template: Any, call: Call, folder: Path, least: int) -> list[Any]:
    """Run the kernels of all points of a template, more than `least`, and return the points."""
    points = template.points()
    assert points[0] == template.default
    assert len(set(points)) == len(points) > least
    kernels = {f"point{i}": template.kernel(point) for i, point in enumerate(points)}
    program = compile_fibers(kernel_source(kernels), folder)
    for seed, ((name, kernel), point) in enumerate(zip(kernels.items(), points, strict=True)):
        after = program.launch(f"{name}_kernel", *launch_extents(kernel), call.arrays(template, point), seed=seed)
        for output, expected in call.expected.items():
            np.testing.assert_array_equal(after[output], expected, err_msg=str(point))
    return list(points)
