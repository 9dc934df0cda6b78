"""The end of one bottleneck and the beginning of the next: a convolution, the 1x1 that widens, the 1x1 that narrows again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import tvm
from tvm import relax

from enet_tvm.compiler.ops.conv2d import FusedConv2D
from enet_tvm.compiler.ops.layout import Layout, Shape
from enet_tvm.compiler.ops.registry import register_op

_CONVOLUTIONS = ("conv", "expand", "beside", "reduce")
"""Names of the convolutions that there may be, in the order in which their arguments follow each other."""


@dataclass(frozen=True)
class FusedBottleneck:
    """Attributes of ``enet.fused_bottleneck``: fused convolutions of which each reads what one before it computes.

    A bottleneck is `reduce`, `conv`, `expand`. Here the last two go together with the `reduce` of the bottleneck after it: once
    `conv` has been computed, whatever its dilation, the two 1x1 convolutions read no neighbour. Before a bottleneck that
    downsamples, `reduce` is a 2x2 convolution with stride 2, and pooling goes beside it: both stay within cells of 2x2 pixels.
    One that upsamples reads the same tensor twice, the second time for its shortcut: that 1x1 convolution is `beside`. It goes
    on with a transposed convolution, `conv`, whose result has twice the height and width and comes in cells of 2x2 pixels too.
    After the last bottleneck a transposed convolution takes the place of `reduce`, which may end in labels.

    Attributes
    ----------
    expand : FusedConv2D
        The 1x1 convolution with the shortcut, whose result the network goes on with.
    conv : FusedConv2D or None
        The convolution before it; None where `expand` reads a tensor.
    reduce : FusedConv2D or None
        The convolution after it, 1x1, or 2x2 with stride 2, which may be transposed; None where no such thing follows.
    pooled : bool
        Whether the 2x2 maxima of the result of `expand` are outputs, with their window indices.
    kept : bool
        Whether that result is an output itself.
    beside : FusedConv2D or None
        Another 1x1 convolution of that result, beside a `reduce` that is 1x1.
    """

    expand: FusedConv2D
    conv: FusedConv2D | None = None
    reduce: FusedConv2D | None = None
    pooled: bool = False
    kept: bool = True
    beside: FusedConv2D | None = None

    @classmethod
    def from_call(cls, call: relax.Call) -> FusedBottleneck:
        """Return what a call of the operator computes."""
        attrs = call.attrs
        parts = {name: FusedConv2D.from_attrs(attrs[name]) for name in _CONVOLUTIONS if name in attrs}
        return cls(**parts, pooled=bool(attrs["pooled"]), kept=bool(attrs["kept"]))

    def to_attrs(self) -> tvm.ir.DictAttrs:
        """Return the operator attributes."""
        parts = {name: part.to_attrs() for name, part in self.named.items()}
        return tvm.ir.make_node("ir.DictAttrs", **parts, pooled=self.pooled, kept=self.kept)

    def without_layers(self) -> FusedBottleneck:
        """Return the same without the names of layers, so that equal ones have one kernel."""
        parts = {name: replace(part, layers=()) for name, part in self.named.items()}
        return FusedBottleneck(**parts, pooled=self.pooled, kept=self.kept)

    @property
    def named(self) -> dict[str, FusedConv2D]:
        """Those of the convolutions that there are by their names, in the order of their arguments."""
        parts = {name: getattr(self, name) for name in _CONVOLUTIONS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def convolutions(self) -> tuple[FusedConv2D, ...]:
        """Those of the convolutions that there are, in the order of their arguments."""
        return tuple(self.named.values())

    @property
    def outputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each output by its name.

        They are ``reduced``, ``beside_out``, ``pooled``, ``window`` and ``out``, those that there are.
        """
        n, channels, height, width = self.expand.out_shape
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.reduce is not None and self.reduce.argmax:
            found["reduced"] = ((n, *self.reduce.out_shape[2:]), "uint8")
        elif self.reduce is not None:
            found["reduced"] = (self.reduce.out_shape, "float32")
        if self.beside is not None:
            found["beside_out"] = (self.beside.out_shape, "float32")
        if self.pooled:
            maxima = (n, channels, height // 2, width // 2)
            found |= {"pooled": (maxima, "float32"), "window": (maxima, "uint8")}
        if self.kept:
            found["out"] = (self.expand.out_shape, "float32")
        return found

    @property
    def in_cells(self) -> bool:
        """Whether pixels go together by cells of 2x2: what is computed of them takes such a cell, or they come of one pixel."""
        halves = self.reduce is not None and self.reduce.strides == (2, 2) and not self.ends_doubled
        return self.doubles or self.pooled or halves

    @property
    def doubles(self) -> bool:
        """Whether it begins with a transposed convolution, which makes height and width twice the input's."""
        return self.conv is not None and self.conv.doubles

    @property
    def ends_doubled(self) -> bool:
        """Whether it ends in a transposed convolution, which makes height and width twice those of the result of `expand`."""
        return self.reduce is not None and self.reduce.doubles

    def split(self, arguments: Sequence[relax.Expr]) -> Iterator[list[relax.Expr]]:
        """Yield the arguments of each convolution as ``enet.fused_conv2d`` takes them, the data of the first in all of them."""
        data, *rest = arguments
        for part in self.convolutions:
            count = part.argument_count - 1
            yield [data, *rest[:count]]
            rest = rest[count:]

    @property
    def data_shape(self) -> Shape:
        """Logical N x C x H x W of the input."""
        return self.convolutions[0].data_shape

    @property
    def out_shape(self) -> Shape:
        """Logical N x C x H x W of the first output."""
        return self.convolutions[-1].out_shape

    @property
    def out_layout(self) -> Layout:
        """Layout of the first output."""
        return self.convolutions[-1].out_layout

    @property
    def layers(self) -> tuple[str, ...]:
        """The sub-modules of the network that it computes; the last one's result is its first output."""
        return tuple(dict.fromkeys(name for part in self.convolutions for name in part.layers))

    @property
    def operators(self) -> list[str]:
        """Names of the operators that it computes, in order, as TVM calls them."""
        names = {name: part.operators for name, part in self.named.items()}
        pooling = ["max_pool2d_with_window"] if self.pooled else []
        return [*names.get("conv", []), *names["expand"], *names.get("beside", []), *pooling, *names.get("reduce", [])]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of its convolutions, padding counted in."""
        return sum(part.multiply_adds for part in self.convolutions)

    @property
    def kernel_name(self) -> str:
        """A name for its kernel: its convolutions, their channels, and the shape."""
        chain = [part for part in self.convolutions if part is not self.beside]
        first, last = chain[0], chain[-1]
        parts = ["bottleneck"]
        for part in chain:
            parts.append(f"{'transpose_' if part.transposed else ''}{part.kernel[0]}x{part.kernel[1]}")
            parts += [f"s{part.strides[0]}"] if part.strides != (1, 1) and not part.transposed else []
            parts += [f"d{part.dilation[0]}"] if part.dilation != (1, 1) else []
        channels = [first.data_shape[1], *(part.out_shape[1] for part in chain)]
        more: list[str] = [] if self.expand.residual == "none" else [self.expand.residual]
        more += [] if self.beside is None else [f"beside{self.beside.out_shape[1]}"]
        more += ["pool"] if self.pooled else []
        more += ["argmax"] if last.argmax else []
        more += [] if self.kept else ["alone"]
        return "_".join([*parts, "to".join(map(str, channels)), f"{last.out_shape[3]}x{last.out_shape[2]}", *more])


def _infer(call: relax.Call) -> relax.TensorType | relax.TupleType:
    outputs = [relax.TensorType(shape, dtype) for shape, dtype in FusedBottleneck.from_call(call).outputs.values()]
    return outputs[0] if len(outputs) == 1 else relax.TupleType(outputs)


FUSED_BOTTLENECK = register_op("enet.fused_bottleneck", "Convolution, widening 1x1 with shortcut, narrowing 1x1", _infer)


def fused_bottleneck(attrs: FusedBottleneck, calls: Sequence[relax.Call]) -> relax.Call:
    """Return a call of the operator in place of those of ``enet.fused_conv2d`` that compute its convolutions.

    Its result is the tuple of ``attrs.outputs``, or the only one of them.

    Parameters
    ----------
    attrs : FusedBottleneck
        What it computes, on plain NCHW tensors of float32.
    calls : sequence of relax.Call
        The call of each of ``attrs.convolutions``.
    """
    arguments = [calls[0].args[0], *(argument for call in calls for argument in call.args[1:])]
    return relax.Call(FUSED_BOTTLENECK, arguments, attrs.to_attrs())
