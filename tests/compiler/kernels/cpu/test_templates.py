"""Which template makes the kernel of a call on a CPU, and in which layouts any does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.planar import PlanarTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.kernels.cpu.winograd import WinogradTemplate
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTemplate
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, Layout, MaxPool2DWithWindow

SAME = FusedConv2D((1, 16, 8, 8), (1, 16, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
STRIDED = FusedConv2D((1, 16, 8, 8), (1, 64, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1))
DOUBLED = FusedConv2D((1, 16, 8, 8), (1, 16, 16, 16), (3, 3), (2, 2), (1, 1), (1, 1), transposed=True)


def with_channels(attrs: FusedConv2D, channels: int) -> FusedConv2D:
    n, _, height, width = attrs.out_shape
    return replace(attrs, out_shape=(n, channels, height, width))


@pytest.mark.parametrize(
    ("attrs", "blocked", "planar"),
    [
        (SAME, True, True),
        (STRIDED, True, False),
        (DOUBLED, True, True),
        (with_channels(SAME, 11), False, True),
        (with_channels(STRIDED, 11), False, False),
        (with_channels(DOUBLED, 19), False, True),
        (replace(SAME, residual="add", residual_channels=16), True, False),
        (replace(SAME, residual="pad", residual_channels=6), False, False),
        (replace(DOUBLED, residual="add", residual_channels=16), False, False),
        (replace(DOUBLED, out_shape=(1, 16, 15, 15)), False, False),
        (replace(DOUBLED, strides=(1, 1), out_shape=(1, 16, 8, 8)), False, False),
        (replace(DOUBLED, strides=(2, 1), out_shape=(1, 16, 16, 8)), False, False),
        (replace(SAME, padding=(0, 0), out_shape=(1, 16, 6, 6)), True, False),
        (replace(SAME, data_shape=(1, 3, 8, 8)), True, True),
        (replace(SAME, data_shape=(1, 16, 8, 1), out_shape=(1, 16, 8, 1)), True, False),
    ],
)
def test_which_template_covers_what(attrs: FusedConv2D, blocked: bool, planar: bool):
    forms = cpu_templates(VectorUnit(8, 16)).covered_forms(attrs)
    layouts = [form.out_layout for form in forms]
    assert (any(layout.block for layout in layouts), PLANAR in layouts) == (blocked, planar)


def test_the_first_that_covers_a_call_is_taken():
    """A large 3x3 convolution goes to Winograd's algorithm where that pays, to the direct kernel elsewhere."""
    large = replace(SAME, data_shape=(1, 32, 64, 64), out_shape=(1, 32, 64, 64))
    blocked = replace(large, data_layout=Layout(16, 1), out_layout=Layout(16), layers=("layer",))
    found = cpu_templates(VectorUnit(16, 32)).find(blocked)
    assert found == WinogradTemplate(replace(blocked, layers=()), VectorUnit(16, 32))
    neon = VectorUnit(4, 32, "aarch64")
    blocked = replace(large, data_layout=Layout(4, 1), out_layout=Layout(4))
    assert isinstance(cpu_templates(neon).find(blocked), BlockedWinogradTemplate)
    assert isinstance(cpu_templates(replace(neon, isa="x86")).find(blocked), Conv2DTemplate)
    assert isinstance(cpu_templates(neon).find(replace(blocked, out_layout=PLANAR)), PlanarTemplate)


def test_labels_end_in_a_planar_kernel():
    labels = replace(SAME, argmax=True)
    assert cpu_templates(VectorUnit(8, 16)).covered_forms(labels) == [replace(labels, out_layout=PLANAR)]


def test_a_planar_pooling_is_left_to_tvm():
    templates = cpu_templates(VectorUnit(8, 16))
    assert templates.find(MaxPool2DWithWindow((1, 16, 8, 8))) is None
    assert templates.find(MaxPool2DWithWindow((1, 16, 8, 8), Layout(8), Layout(8))) is not None
    assert templates.find(None) is None
