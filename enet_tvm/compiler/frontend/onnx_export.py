"""PyTorch to an ONNX file, with pooling and unpooling in window or portable form, checked by ONNX Runtime before it appears."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.defs
import onnxscript
import torch
from torch import nn

from enet_tvm.agreement import EXPORT, LOGIT_TOLERANCE
from enet_tvm.compiler.frontend.onnx_window import DOMAIN, DOMAIN_VERSION, POOL, UNPOOL, expand_window_calls
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.networks.portable import portable
from enet_tvm.networks.weights import WeightsInfo
from enet_tvm.networks.window import to_window_form
from enet_tvm.size import Size
from enet_tvm.version import __version__

OPSETS = range(18, 24)
"""Versions of the standard operators that can be written; PyTorch's exporter starts at 18."""

_INPUTS = 3
"""Number of random inputs of which one must agree."""

Form = Literal["window", "portable"]
"""How a file unpools: by the place inside each window; or by arithmetic that embedded runtimes have, which is the same unless a
window has its maximum several times."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with PyTorch on random input.

    Attributes
    ----------
    opset : int
        Version of the standard operators.
    nodes : int
        Nodes of the graph, constants included.
    max_abs_logit_diff : float
        Largest difference of two logits, ONNX Runtime against PyTorch.
    agreement : float
        Share of pixels whose logits are all within `LOGIT_TOLERANCE`.
    """

    opset: int
    nodes: int
    max_abs_logit_diff: float
    agreement: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def export_onnx(
    network: nn.Module,
    info: WeightsInfo,
    size: Size,
    path: str | Path,
    opset: int = OPSETS[0],
    weights_sha256: str | None = None,
    form: Form = "window",
) -> ExportReport:
    """Write a network as an ONNX file of fixed input size.

    Parameters
    ----------
    network : nn.Module
        Network to export; it is put into eval mode.
    info : WeightsInfo
        Name of the network, classes, palette, mean and std for the file's metadata; all but the name are JSON there.
    size : Size
        Width and height in pixels of the input ``picture``, 1 x 3 x H x W float32, normalised. The output is ``logits``.
    path : str or Path
        File to write.
    opset : int
        Version of the standard operators, one of `OPSETS`.
    weights_sha256 : str, optional
        Hash of the weights file that `network` came from: what is compiled from the ONNX file can then be verified
        against these weights.
    form : {"window", "portable"}
        How the file unpools: `enet_tvm.networks.window` or `enet_tvm.networks.portable`, which also folds batch norms.

    Raises
    ------
    UserError
        When the opset is out of range, the network has no such form, the file cannot be written, or ONNX Runtime
        does not compute from it what PyTorch does.
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset} cannot be written; choose one from {OPSETS[0]} to {OPSETS[-1]}")
    network = network.eval()
    formed = portable(network) if form == "portable" else to_window_form(network)
    with atomic_file(path) as temporary:
        model = to_model(formed, size, opset)
        for key in ("network", "classes", "palette", "mean", "std"):
            value = asdict(info)[key]
            model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
        if weights_sha256 is not None:
            model.metadata_props.add(key="weights_sha256", value=weights_sha256)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)
        difference, agreement = _compare(temporary, network, size)
        if not agreement >= EXPORT:
            raise UserError(
                f"ONNX Runtime agrees with PyTorch on {agreement:.2%} of the pixels only (logits differ by up to "
                f"{difference:.2g}), so {path} was not written; try another --opset"
            )
    return ExportReport(opset, len(model.graph.node), difference, agreement)


def to_model(network: nn.Module, size: Size, opset: int) -> onnx.ModelProto:
    """Return the ONNX form of a network in window or portable form."""
    table: dict[Callable[..., Any], Any] = {
        torch.ops.enet_tvm.max_pool2d_with_window.default: _call(POOL, {"x": "float"}, {"pooled": "float", "window": "uint8"}),
        torch.ops.enet_tvm.max_unpool2d.default: _call(UNPOOL, {"x": "float", "window": "uint8"}, {"plane": "float"}),
    }
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 3, size.height, size.width),),
            dynamo=True,
            opset_version=opset,
            input_names=["picture"],
            output_names=["logits"],
            custom_translation_table=table,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    _name_by_layer(model)
    expand_window_calls(model)
    model.producer_name, model.producer_version = "enet-tvm", __version__
    return model


def _call(name: str, inputs: dict[str, str], outputs: dict[str, str]) -> Any:
    """Return the translation of a custom operator of PyTorch: a call of an ONNX function of the same name."""
    parameter = onnx.defs.OpSchema.FormalParameter
    schema = onnx.defs.OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[parameter(key, f"tensor({kind})") for key, kind in inputs.items()],
        outputs=[parameter(key, f"tensor({kind})") for key, kind in outputs.items()],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION), name, schema)


def _name_by_layer(model: onnx.ModelProto) -> None:
    """Name every node after its layer, and drop the exporter's notes, which hold paths of this machine."""
    layers = [_layer(node) for node in model.graph.node]
    left = Counter(layers)
    for node, layer in zip(model.graph.node, layers, strict=True):
        # Where a layer has several nodes, the last has the plain name.
        left[layer] -= 1
        node.name = f"{layer}#{left[layer]}" if left[layer] else layer
        node.doc_string = ""
        del node.metadata_props[:]
    for holder in (
        model,
        model.graph,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
    ):
        del holder.metadata_props[:]


def _layer(node: onnx.NodeProto) -> str:
    """Return the dotted name of the module that a node comes from."""
    for note in node.metadata_props:
        if note.key == "pkg.torch.onnx.name_scopes":
            scopes = json.loads(note.value.replace("'", '"'))  # outermost first; the last is the operation itself
            return (scopes[-2] if len(scopes) > 1 else "") or scopes[-1]
    # A convolution into which the exporter folded a batch norm has no notes left.
    weights = [name for name in node.input if name.endswith(".weight")]
    return weights[0].removesuffix(".weight") if weights else node.output[0]


def _compare(path: Path, network: nn.Module, size: Size) -> tuple[float, float]:
    """Return (largest logit difference, share of pixels that agree) of the file in ONNX Runtime and PyTorch.

    One input tells. Only where two values of a pooling window are nearly equal may the order of float32 sums choose another
    place, and move a patch of the output on one machine and not on the next; so up to three inputs are tried.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst, share = float("nan"), 0.0
    for _ in range(_INPUTS):
        x = torch.randn(1, 3, size.height, size.width, generator=generator)
        with torch.no_grad():
            expected = network(x).numpy()
        actual = session.run(None, {"picture": x.numpy()})[0]
        if actual.shape != expected.shape:
            return float("nan"), 0.0
        difference = np.abs(actual - expected)
        agrees = float((difference <= LOGIT_TOLERANCE * np.abs(expected).max()).all(axis=1).mean())
        if agrees >= share:
            worst, share = float(difference.max()), agrees
        if share >= EXPORT:
            break
    return worst, share


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about operators that are not used here from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
