"""Bisection: each kernel's output of a compiled module compared with PyTorch's output of the layer it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from enet_tvm.compiler.quantisation.codes import Codes

if TYPE_CHECKING:
    from enet_tvm.artifact import OutputLayout
    from enet_tvm.runtime import Segmenter
    from enet_tvm.runtime.segmenter import Picture

TOLERANCE = 1e-3
"""Largest difference in a layer, relative to the layer's largest value, above which the two sides count as parted.

Rounding alone stays below 1e-5 in float32, wrong arithmetic is far above.
"""


@dataclass(frozen=True)
class LayerDifference:
    """Difference between one kernel's output and that of its layer.

    Attributes
    ----------
    kernel : str
        Name of the compiled function.
    launch : int
        Number of the kernel's launch in the forward pass, from 0.
    layer : str
        Path of the PyTorch module whose output it computes.
    max_abs_diff : float
        Largest absolute difference.
    scale : float
        Largest absolute value on PyTorch's side.
    """

    kernel: str
    launch: int
    layer: str
    max_abs_diff: float
    scale: float

    @property
    def relative(self) -> float:
        """The difference as a share of the scale; infinite for a difference from all zeros."""
        if self.max_abs_diff == 0:
            return 0.0
        return self.max_abs_diff / self.scale if self.scale else float("inf")

    @property
    def parted(self) -> bool:
        """Whether the difference is more than rounding; that of a NaN always is."""
        return not self.relative <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them (a difference or ratio that is not a number becomes null)."""
        figures = {**asdict(self), "relative": self.relative}
        return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in figures.items()}


def compare_layers(segmenter: Segmenter, network: nn.Module, picture: Picture) -> list[LayerDifference]:
    """Compare every kernel whose layer is known with PyTorch, in launch order.

    Parameters
    ----------
    segmenter : Segmenter
        The compiled network.
    network : torch.nn.Module
        The PyTorch network that it was compiled from, in eval mode.
    picture : PIL.Image.Image or ndarray
        Picture to run, as `Segmenter.segment` takes it.

    Raises
    ------
    ValueError
        When the module launches other kernels than its manifest lists, or a kernel's output has another shape than
        its layer's: the manifest is wrong.
    """
    kernels = segmenter.manifest.kernels
    x = np.repeat(segmenter.preprocess(picture), segmenter.manifest.input.shape[0], axis=0)
    outputs = segmenter.run_instrumented(x)
    if [name for name, _ in outputs] != [kernel.name for kernel in kernels]:
        raise ValueError("the module does not launch the kernels that its manifest lists")
    reference = layer_outputs(network, x, {kernel.layers[-1] for kernel in kernels if kernel.layers})
    differences = []
    for launch, (kernel, (_, output)) in enumerate(zip(kernels, outputs, strict=True)):
        if not kernel.layers or kernel.output_layout is None:
            continue
        expected = reference[kernel.layers[-1]]
        found = to_nchw(output, kernel.output_layout)[:, : expected.shape[1]]
        if found.shape != expected.shape:
            raise ValueError(f"{kernel.name} wrote {found.shape}, but {kernel.layers[-1]} is {expected.shape}")
        difference = float(np.abs(found.astype(np.float64) - expected).max())
        scale = float(np.abs(expected).max())
        differences.append(LayerDifference(kernel.name, launch, kernel.layers[-1], difference, scale))
    return differences


def first_parting(differences: Sequence[LayerDifference]) -> LayerDifference | None:
    """Return the first layer whose difference is more than rounding, or None."""
    return next((difference for difference in differences if difference.parted), None)


@torch.inference_mode()
def layer_outputs(network: nn.Module, x: NDArray[np.float32], layers: set[str]) -> dict[str, NDArray[np.float32]]:
    """Return what the named modules put out in one forward pass, N x C x H x W float32 each.

    Of a module that returns a tuple it is the first element. The empty name is the whole network.

    Raises
    ------
    ValueError
        When there is no such module, or the forward pass does not reach it.
    """
    outputs: dict[str, NDArray[np.float32]] = {}
    modules = dict(network.named_modules())
    if missing := sorted(layers - modules.keys()):
        raise ValueError(f"the network has no layer '{missing[0]}'")

    def keep(name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        # A copy: the next layer may work in place.
        outputs[name] = (output if isinstance(output, Tensor) else output[0]).clone().numpy()

    def hook(name: str) -> Any:
        return lambda _module, _inputs, output: keep(name, output)

    handles = [modules[name].register_forward_hook(hook(name)) for name in layers]
    try:
        network(torch.from_numpy(x))
    finally:
        for handle in handles:
            handle.remove()
    if unreached := sorted(layers - outputs.keys()):
        raise ValueError(f"the forward pass does not reach layer '{unreached[0]}'")
    return outputs


def to_nchw(output: NDArray[Any], layout: OutputLayout) -> NDArray[Any]:
    """Return a kernel's output as N x C x H x W, without the columns of padding.

    Parameters
    ----------
    output : ndarray
        Output as the kernel wrote it: N x C/b x H x (W + 2p) x b for a block of b channels, N x C x H x (W + 2p) for none;
        elements shorter than 32 bits in words of these, but float16 as it is.
    layout : OutputLayout
        Block b, padding p, and type of the elements.
    """
    if layout.dtype == "float16":
        output = output.astype(np.float32)
    elif layout.dtype == "bfloat16":
        output = (output.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif layout.dtype in ("uint8", "int8"):
        codes = output.view(np.uint8) ^ np.uint8(0x80 if layout.dtype == "int8" else 0)
        output = Codes(layout.scale, layout.zero).decode(codes)
    if output.ndim == 5:
        batch, blocks, height, width, block = output.shape
        output = output.transpose(0, 1, 4, 2, 3).reshape(batch, blocks * block, height, width)
    return output[..., layout.pad : output.shape[-1] - layout.pad]
