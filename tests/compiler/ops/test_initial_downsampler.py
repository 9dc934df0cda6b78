"""What an initial block that is downsampled at once says of itself."""

from __future__ import annotations

from dataclasses import replace

from initial_downsamplers import DownsamplerCall, downsampler
from tvm import relax

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.ops import InitialDownsampler, fused_conv2d, initial_block, initial_downsampler, spec_of

SPEC = downsampler((2, 3, 24, 40), 13, 16)


def call_of(spec: InitialDownsampler, layers: tuple[str, ...] = ()) -> relax.Call:
    data, *given = map(constant, DownsamplerCall(spec).arguments)
    block = initial_block(spec.block, data, *given[:5])
    wide = relax.Var("wide", relax.TensorType(spec.block.out_shape, "float32"))
    return initial_downsampler(block, fused_conv2d(spec.reduce, wide, *given[5:]), layers)


def test_attributes_survive_the_operator():
    assert spec_of(call_of(SPEC)) == InitialDownsampler.from_call(call_of(SPEC)) == SPEC
    assert len(call_of(SPEC).args) == 9


def test_results():
    found = relax.BlockBuilder().normalize(call_of(SPEC)).ty.fields
    assert [(tuple(int(n) for n in kind.shape.values), str(kind.dtype)) for kind in found] == [
        ((2, 16, 6, 10), "float32"),
        ((2, 16, 6, 10), "float32"),
        ((2, 16, 6, 10), "uint8"),
    ]
    assert list(SPEC.outputs) == ["reduced", "pooled", "window"]
    assert SPEC.out_shape == (2, 16, 6, 10)


def test_what_it_computes():
    assert SPEC.multiply_adds == 2 * (12 * 20 * 13 * 27 + 6 * 10 * 16 * 64)
    assert [name for name in SPEC.operators if "conv" in name or "pool" in name] == [
        *("conv2d", "max_pool2d"),
        *("max_pool2d_with_window", "conv2d"),
    ]


def test_layers_are_no_part_of_a_kernel():
    named = InitialDownsampler(replace(SPEC.block, layers=("a", "b")), replace(SPEC.reduce, layers=("d",)))
    found = InitialDownsampler.from_call(call_of(named, ("c",)))
    assert found.layers == ("a", "b", "c", "d")
    assert found.without_layers() == SPEC
