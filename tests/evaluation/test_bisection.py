from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.artifact import OutputLayout
from enet_tvm.evaluation.bisection import LayerDifference, compare_layers, first_parting, layer_outputs, to_nchw


@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([16, 32]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    block=st.sampled_from([1, 4, 8, 16]),
    pad=st.integers(0, 3),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_layouts_are_undone(batch, channels, height, width, block, pad, dtype):
    """Stored by hand, element by element, and read back."""
    plain = np.arange(batch * channels * height * width, dtype=np.float32).reshape(batch, channels, height, width)
    shape = (
        (batch, channels // block, height, width + 2 * pad, block) if block > 1 else (batch, channels, height, width + 2 * pad)
    )
    stored = np.full(shape, -1, dtype)
    for n, c, y, x in np.ndindex(plain.shape):
        at = (n, c // block, y, x + pad, c % block) if block > 1 else (n, c, y, x + pad)
        stored[at] = plain[n, c, y, x]
    found = to_nchw(stored, OutputLayout(shape=shape, block=block, pad=pad, dtype=dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, plain)


def with_layers(segmenter, *layers: tuple[str, ...]):
    """Give the kernels of a tiny segmenter layers, and the layout that the fixture leaves out."""
    shape = segmenter.manifest.input.shape
    kernels = tuple(
        kernel.model_copy(update={"layers": names, "output_layout": kernel.output_layout or OutputLayout(shape=shape)})
        for kernel, names in zip(segmenter.manifest.kernels, layers, strict=True)
    )
    segmenter.manifest = segmenter.manifest.model_copy(update={"kernels": kernels})
    return segmenter


def test_all_layers_agree(tiny_segmenter, tiny_network, pictures):
    differences = compare_layers(with_layers(tiny_segmenter, ("twice",), ("first", "conv")), tiny_network, pictures[1])
    assert [(d.kernel, d.launch, d.layer) for d in differences] == [("double", 0, "twice"), ("conv2d", 1, "conv")]
    assert all(d.relative < 1e-5 for d in differences)
    assert first_parting(differences) is None


def test_the_wrong_layer_is_found(tiny_segmenter, tiny_network, pictures):
    with torch.no_grad():
        tiny_network.conv.weight[2, 1] += 0.1
    differences = compare_layers(with_layers(tiny_segmenter, ("twice",), ("conv",)), tiny_network, pictures[0])
    parting = first_parting(differences)
    assert parting is not None
    assert parting.layer == "conv"
    assert not differences[0].parted


def test_kernels_without_a_layer_are_passed_over(tiny_segmenter, tiny_network, pictures):
    differences = compare_layers(with_layers(tiny_segmenter, (), ("conv",)), tiny_network, pictures[0])
    assert [d.layer for d in differences] == ["conv"]


def test_a_manifest_of_other_kernels(tiny_segmenter, tiny_network, pictures):
    tiny_segmenter.manifest = tiny_segmenter.manifest.model_copy(update={"kernels": tiny_segmenter.manifest.kernels[::-1]})
    with pytest.raises(ValueError, match="does not launch the kernels"):
        compare_layers(tiny_segmenter, tiny_network, pictures[0])


def test_layers_that_are_not_there(tiny_network):
    x = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="no layer 'nothing'"):
        layer_outputs(tiny_network, x, {"nothing"})
    tiny_network.conv.add_module("unused", torch.nn.ReLU())
    with pytest.raises(ValueError, match=r"does not reach layer 'conv\.unused'"):
        layer_outputs(tiny_network, x, {"conv.unused"})


@pytest.mark.parametrize(
    ("difference", "scale", "parted"),
    [(0.0, 0.0, False), (1e-6, 1.0, False), (0.1, 1.0, True), (1e-9, 0.0, True), (math.nan, 1.0, True), (0.1, 1e4, False)],
)
def test_what_parted_means(difference, scale, parted):
    layer = LayerDifference("k", 0, "l", difference, scale)
    assert layer.parted is parted
    assert all(value is not None or key in ("max_abs_diff", "relative") for key, value in layer.to_dict().items())
