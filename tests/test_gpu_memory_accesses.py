"""What the warps of ENet's kernels touch at 640x360: sectors of global memory against the least, and bank conflicts.

Counted in a block in the middle of each launch. A bound holds for every kernel of its kind and target, so that a new tile, or a
new kernel, that spreads its threads badly is found where no GPU is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cuda_fibers import compile_fibers
from cuda_network import block_accesses, only_kernels
from gpu_enet import enet_for_gpu
from gpu_targets import GPU_TARGETS
from warp_accesses import Traffic, traffic

LOADS = (
    # Every second column is another instruction's.
    (r"conv2d_\dx\d_s2|initial_block|max_pool2d", 2.0),
    # As the next, but the weights, which all threads of a warp share, are loaded by some of its warps alone.
    (r"bottleneck_.*_transpose_2x2", 1.3),
    # A neighbour's columns begin within a sector: 5 of them, not 4.
    (r"bottleneck|conv2d_(transpose_)?\dx[2-9]", 1.2),
    (r"", 1.0),
)
"""Most sectors that loads touch for each that they must: of the first pattern that is in a kernel's name."""

STORES = ((r"bottleneck_.*_pool|initial_block_down", 1.1), (r"", 1.0))
"""The same of stores: window indices are bytes, and not every plane of them begins with a sector."""


@pytest.fixture(scope="module")
def counted() -> dict[str, Traffic]:
    """What the warps of kernels touch, by what there is of them: GPUs share many."""
    return {}


# Beside `test_gpu_machine_code.py`, which begins with the first, so that neither waits for what the other compiles.
@pytest.mark.slow
@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("target", [*reversed(GPU_TARGETS)])
def test_sectors_and_banks(tmp_path: Path, counted: dict[str, Traffic], target: str):
    network, _ = enet_for_gpu(target)
    assert len(network.kernels) >= 17
    texts = {name: kernel.script() for name, kernel in network.kernels.items()}
    if new := {name: kernel for name, kernel in network.kernels.items() if texts[name] not in counted}:
        program = compile_fibers(only_kernels(network.source, [f"{name}_kernel" for name in new]), tmp_path)
        counted |= {texts[name]: traffic(block_accesses(program, name, kernel)) for name, kernel in new.items()}
    wrong = []
    for name, text in texts.items():
        counts = counted[text]
        loads, stores = (next(most for pattern, most in bounds if re.match(pattern, name)) for bounds in (LOADS, STORES))
        assert counts.loads, name
        assert counts.stores, name
        if counts.load_ratio > loads or counts.store_ratio > stores or counts.conflicts:
            wrong.append(
                f"{name}: loads x {counts.load_ratio:.2f}, stores x {counts.store_ratio:.2f}, {counts.conflicts} conflicts"
            )
    assert not wrong, "\n".join(wrong)
