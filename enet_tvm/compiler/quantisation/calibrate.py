"""Calibration: what ranges the float32 network's layers have on real pictures.

They are read from the compiled network, kernel by kernel, so they are those of the very tensors that are to be quantised,
after fusion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.quantisation.calibration import Calibration
from enet_tvm.compiler.quantisation.codes import INPUT
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.networks import NetworkInMemory
from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size
from enet_tvm.targets import NATIVE, load_target


def calibrate(
    weights: Path | NetworkInMemory, pictures: Iterable[Image.Image], source: str, size: Size | None = None
) -> Calibration:
    """Run pictures through the float32 network on this machine and note the range of its input and of each layer's output.

    Parameters
    ----------
    weights : Path or NetworkInMemory
        Network, as `enet_tvm.compiler.compile.CompileRequest` takes it.
    pictures : iterable of PIL.Image.Image
        Pictures like those that the network will see in use; some dozens.
    source : str
        Description of the pictures.
    size : Size, optional
        Width and height of the network's input in pixels.

    Raises
    ------
    UserError
        When there are no pictures, or the network cannot be compiled.
    """
    ranges: dict[str, tuple[float, float]] = {}
    count = 0

    def seen(layer: str, values: np.ndarray) -> None:
        low, high = ranges.get(layer, (0.0, 0.0))
        ranges[layer] = (min(low, float(values.min())), max(high, float(values.max())))

    with tempfile.TemporaryDirectory() as directory:
        artifact = Path(directory) / "artifact"
        manifest = compile_artifact(CompileRequest(Workload(weights, size, load_target(NATIVE))), artifact)
        with Segmenter.load(artifact) as segmenter:
            for picture in pictures:
                x = np.repeat(segmenter.preprocess(picture), manifest.input.shape[0], axis=0)
                seen(INPUT, x)
                for kernel, (_, output) in zip(manifest.kernels, segmenter.run_instrumented(x), strict=True):
                    # Padding is zero, which every range includes anyway.
                    if kernel.layers and kernel.output_layout is not None:
                        seen(kernel.layers[-1], output)
                count += 1
    if not count:
        raise UserError("there are no pictures to calibrate on; give some dozens like those it will see")
    return Calibration(weights=manifest.hashes.weights, pictures=count, source=source, ranges=ranges)
