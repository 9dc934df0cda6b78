"""An ONNX file written by this project to Relax.

TVM's importer knows neither functions nor unpooling that is right (its ``MaxPool`` has no indices, its ``MaxUnpool``
scatters in one flat plane); the window functions of `onnx_window` become the project's own operators instead, and
whatever else would need indices is refused.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
import onnx.numpy_helper
import tvm
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import constant_value
from enet_tvm.compiler.frontend.layer_names import named_after_layers
from enet_tvm.compiler.frontend.onnx_window import DOMAIN, POOL, UNPOOL, collapse_window_calls
from enet_tvm.errors import UserError
from enet_tvm.files import parse_json, sha256
from enet_tvm.networks.weights import WeightsInfo, parse_info

_STANDARD = ("", "ai.onnx")
_AGAIN = "export it with 'enet-tvm export'"


def from_onnx(path: str | Path) -> tvm.IRModule:
    """Return the Relax module of an ONNX file, its weights as constants.

    Parameters
    ----------
    path : str or Path
        File of ``enet-tvm export``: one float32 input of fixed shape, one output.

    Returns
    -------
    tvm.IRModule
        Module with one function ``main``, made of the same operators as `from_torch` returns; variables are named after
        the nodes.

    Raises
    ------
    UserError
        When the file is missing or broken, or holds what cannot be imported rightly: pooling with indices, unpooling
        by indices, operators that TVM does not know, inputs of unknown shape.
    """
    model = _load(path)
    model = onnx.inliner.inline_local_functions(model)
    collapse_window_calls(model)
    _check(model, path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in _STANDARD)
    importer = _Importer()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):  # the importer prints, then raises
            mod = importer.from_onnx(model.graph, opset)
    except Exception as error:  # what TVM raises at a file that it does not understand has no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"{path} cannot be imported ({reason}); {_AGAIN}") from error
    return named_after_layers(mod, importer.layers)


def read_onnx_info(path: str | Path) -> WeightsInfo:
    """Return what an ONNX file made here says of its network, classes, palette and normalisation.

    Raises
    ------
    UserError
        When the file is missing or broken, or does not say it.
    """
    said = {entry.key: entry.value for entry in _load(path).metadata_props}
    try:
        raw = {key: parse_json(said[key]) for key in ("classes", "palette", "mean", "std") if key in said}
    except ValueError as error:
        raise UserError(f"{path} does not say which network and classes it is of ({error}); {_AGAIN}") from error
    return parse_info({"network": said.get("network"), **raw}, path, _AGAIN)


def read_onnx_source(path: str | Path) -> tuple[tuple[int, int, int, int], str]:
    """Return the input shape (N, C, H, W) of an ONNX file made here, and the SHA-256 of the weights it was made from.

    Where the file does not say the latter, it is the file's own hash.

    Raises
    ------
    UserError
        When the file is missing or broken, or its input has no fixed shape of four extents.
    """
    model = _load(path)
    extents = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] if model.graph.input else []
    if len(extents) != 4 or not all(extents):
        raise UserError(f"{path} has no input of fixed shape N x C x H x W; {_AGAIN}")
    said = {entry.key: entry.value for entry in model.metadata_props}
    n, c, h, w = extents
    return (n, c, h, w), said.get("weights_sha256") or sha256(Path(path).expanduser())


def _load(path: str | Path) -> onnx.ModelProto:
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is not a valid ONNX file ({reason}); {_AGAIN}") from error
    return model


def _check(model: onnx.ModelProto, path: str | Path) -> None:
    """Refuse what would be imported wrongly, or not at all."""
    for node in _nodes(model.graph):
        label = node.name or node.op_type
        if node.domain in _STANDARD:
            if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
                raise UserError(f"{path}: '{label}' is a max pooling with indices, which cannot be imported rightly; {_AGAIN}")
            if node.op_type == "MaxUnpool":
                raise UserError(f"{path}: '{label}' unpools by indices, which cannot be imported rightly; {_AGAIN}")
        elif (node.domain, node.op_type) not in ((DOMAIN, POOL), (DOMAIN, UNPOOL)):
            raise UserError(
                f"{path}: '{label}' is an operator of the domain '{node.domain}', which is not known here; {_AGAIN}"
            )
    weights = {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(
                f"{path}: '{tensor.name}' has NaN or infinite values; export weights of a training that did not diverge"
            )
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserError(f"{path} has {len(inputs)} inputs and {len(model.graph.output)} outputs, not one of each; {_AGAIN}")
    kind = inputs[0].type.tensor_type
    if (
        kind.elem_type != onnx.TensorProto.FLOAT
        or any(side.dim_value < 1 for side in kind.shape.dim)
        or len(kind.shape.dim) != 4
    ):
        raise UserError(f"{path}: the input is not a float32 tensor of four fixed dimensions; {_AGAIN}")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs within."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


class _Importer(ONNXGraphImporter):
    """TVM's importer with the window functions, and with one binding for each node."""

    def __init__(self) -> None:
        super().__init__(shape_dict={}, dtype_dict="float32")
        self.layers: dict[str, str] = {}

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        standard = onnx.GraphProto()
        standard.node.extend(node for node in graph.node if node.domain in _STANDARD)
        super()._check_for_unsupported_ops(standard)

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> relax.Expr:
        if op_name == "BatchNormalization" and not attrs.get("training_mode") and attrs["tvm_custom"]["num_outputs"] == 1:
            result = relax.TupleGetItem(self.bb.emit(_batch_norm(inputs, attrs)), 0)
        elif op_name in _CONVERTERS:
            result = _CONVERTERS[op_name](inputs, attrs)
        else:
            result = super()._convert_operator(op_name, inputs, attrs, opset)
        # Left unbound, an expression would be computed anew for each of its users.
        layer = attrs["tvm_custom"]["name"]
        if isinstance(result, tvm.ir.Call | relax.TupleGetItem):
            result = self._bind(result, layer)
        if isinstance(result, relax.Var) and isinstance(result.ty, relax.TupleType):
            result = relax.Tuple([self._bind(relax.TupleGetItem(result, i), layer) for i in range(len(result.ty.fields))])
        return result

    def _bind(self, value: relax.Expr, layer: str) -> relax.Var:
        var = self.bb.emit(value)
        self.layers[var.name] = layer
        return var


def _batch_norm(inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    epsilon, momentum = attrs.get("epsilon", 1e-5), attrs.get("momentum", 0.9)
    return relax.op.nn.batch_norm(*inputs[0:5], axis=1, epsilon=epsilon, momentum=momentum, training=False)


def _pool(inputs: Any, _attrs: dict[str, Any]) -> relax.Expr:
    return ops.max_pool2d_with_window(inputs[0])


def _unpool(inputs: Any, _attrs: dict[str, Any]) -> relax.Expr:
    x, window = inputs[0:2]
    height, width = (2 * int(extent) for extent in x.ty.shape.values[2:])
    return ops.max_unpool2d(x, window, (height, width))


def _pad(inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert a padding by a constant; TVM's converter makes a kernel of it, which no pass sees through."""
    x, widths, value, axes = inputs[0:4]
    known = constant_value(widths)
    filling = np.zeros(()) if value is None else constant_value(value)
    if attrs.get("mode", b"constant") != b"constant" or known is None or filling is None or axes is not None:
        raise ValueError("a padding that is not by a constant")
    before, after = known.reshape(2, -1).tolist()
    pairs = [int(width) for pair in zip(before, after, strict=True) for width in pair]
    return relax.op.nn.pad(x, pairs, pad_value=float(filling))


_CONVERTERS = {POOL: _pool, UNPOOL: _unpool, "Pad": _pad}
