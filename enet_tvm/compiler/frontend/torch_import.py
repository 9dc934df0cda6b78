"""PyTorch to Relax: layer by layer, or through ``torch.export`` with converters for what the stock importer gets wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx, nn
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from enet_tvm.compiler import ops
from enet_tvm.compiler.frontend.layer_import import from_layers
from enet_tvm.compiler.frontend.layer_names import named_after_layers
from enet_tvm.errors import UserError


def from_torch(network: nn.Module, input_shape: tuple[int, int, int, int]) -> tvm.IRModule:
    """Return the Relax module of a network in eval mode, its weights as constants.

    Parameters
    ----------
    network : torch.nn.Module
        Network that takes one float32 tensor and returns one.
    input_shape : tuple of int
        N x C x H x W of that tensor.

    Returns
    -------
    tvm.IRModule
        Module with one function ``main``; every variable is named after the sub-module that makes its value.

    Raises
    ------
    UserError
        When the network holds an operator that cannot be imported rightly.
    """
    network.eval()
    mod = from_layers(network, input_shape)
    return from_export(network, input_shape) if mod is None else mod


def from_export(network: nn.Module, input_shape: tuple[int, int, int, int]) -> tvm.IRModule:
    """Return the Relax module of any network in eval mode through ``torch.export``, as `from_torch` does."""
    exported = torch.export.export(network, (torch.zeros(input_shape),))
    importer = _Importer()
    mod = _import(importer, exported)
    return named_after_layers(mod, importer.layers)


def _import(importer: _Importer, exported: torch.export.ExportedProgram) -> tvm.IRModule:
    # Without decomposition PReLU stays one operator, which fuses; decomposed it splits each convolution's kernel.
    return importer.from_exported_program(
        exported,
        keep_params_as_input=False,
        unwrap_unit_return_tuple=True,
        no_bind_return_tuple=False,
        custom_convert_map={
            "batch_norm.default": _batch_norm,
            "feature_dropout.default": _inference_dropout,
            "feature_dropout_.default": _inference_dropout,
            "dropout.default": _inference_dropout,
            "dropout_.default": _inference_dropout,
            "native_dropout.default": _refused,
            "max_pool2d_with_indices.default": _max_pool2d_with_window,
            "max_pool3d_with_indices.default": _refused,
            "max_unpool2d.default": _max_unpool2d,
        },
    )


class _Importer(ExportedProgramImporter):
    """The stock importer, remembering which layer each variable's value comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[str, str] = {}

    def _translate_fx_graph(
        self, graph_module: fx.GraphModule, nodes: Iterable[fx.Node], inputs_vars: Any, custom_ops: Any
    ) -> Any:
        for name, convert in list(self.convert_map.items()):
            self.convert_map[name] = self._remembering(convert)
        return super()._translate_fx_graph(graph_module, nodes, inputs_vars, custom_ops)

    def _check_unsupported_func_type(self, nodes: list[fx.Node]) -> None:
        try:
            super()._check_unsupported_func_type(nodes)
        except AssertionError as error:
            raise UserError(f"TVM cannot import this network ({error}); replace these operators by others") from error

    def _remembering(self, convert: Any) -> Any:
        def converted(node: fx.Node, *importer: Any) -> Any:
            result = convert(node, *importer)
            stack = list(node.meta.get("nn_module_stack", {}).values())
            if stack and isinstance(result, relax.Var):
                self.layers[result.name] = stack[-1][0]
            return result

        return converted


def _batch_norm(node: fx.Node, importer: _Importer) -> relax.Var:
    """Convert an undecomposed batch norm, whose arguments TVM 0.27 reads one place off.

    ``aten::batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn)`` is taken for its decomposed
    form there: the momentum becomes epsilon, and the statistics become those of the batch.
    """
    arguments: Any = node.args
    data, weight, bias, mean, variance, training, momentum, epsilon = arguments[:8]
    if training or mean is None or variance is None:
        raise UserError(f"'{node.name}' is a batch norm without fixed statistics; call network.eval() before the import")
    x = importer.env[data]
    channels = int(x.ty.shape.values[1])
    gamma = relax.const(np.ones(channels, "float32")) if weight is None else importer.env[weight]
    beta = relax.const(np.zeros(channels, "float32")) if bias is None else importer.env[bias]
    normalised = importer.block_builder.emit(
        relax.op.nn.batch_norm(
            x, gamma, beta, importer.env[mean], importer.env[variance],
            axis=1, epsilon=float(epsilon), momentum=float(momentum), training=False,
        )
    )  # fmt: skip
    return importer.block_builder.emit(normalised[0])


def _inference_dropout(node: fx.Node, importer: _Importer) -> relax.Var:
    """Return dropout's input: a network in eval mode drops nothing."""
    if len(node.args) > 2 and node.args[2]:
        raise UserError(f"'{node.name}' is a dropout in training mode; call network.eval() before the import")
    return importer.env[node.args[0]]


def _max_pool2d_with_window(node: fx.Node, importer: _Importer) -> relax.Var:
    """Convert a max pooling whose indices are used: 2x2 windows, stride 2, nothing else."""
    values: list[Any] = [2, None, 0, 1, False]
    values[: len(node.args) - 1] = node.args[1:]
    kernel, stride, padding, dilation, ceil_mode = values
    if not (_is(kernel, 2) and _is(stride or kernel, 2) and _is(padding, 0) and _is(dilation, 1)) or ceil_mode:
        raise UserError(f"'{node.name}' pools with indices in windows other than 2x2 with stride 2; use nn.MaxPool2d(2)")
    for item in node.users:
        # A window index is not PyTorch's index into the plane: it must not reach anything else.
        if item.args[1] == 1 and not all(_is_call(user, "max_unpool2d") and user.args[1] is item for user in item.users):
            raise UserError(f"the indices of '{node.name}' go elsewhere than to a max unpooling; that cannot be imported")
    return importer.block_builder.emit(ops.max_pool2d_with_window(importer.env[node.args[0]]))


def _max_unpool2d(node: fx.Node, importer: _Importer) -> relax.Var:
    """Convert an unpooling by the window indices of the pooling it undoes."""
    arguments: Any = node.args
    data, indices, size = arguments[:3]
    source = indices.args[0] if isinstance(indices, fx.Node) and indices.args else None
    if not isinstance(source, fx.Node) or not _is_call(source, "max_pool2d_with_indices"):
        raise UserError(f"'{node.name}' takes indices that no max pooling of this network made; it cannot be imported")
    height, width = (int(extent) for extent in size)
    pooled = tuple(int(extent) for extent in importer.env[source.args[0]].ty.shape.values[2:])
    if (height, width) != pooled:
        raise UserError(
            f"'{node.name}' unpools to {width}x{height} what was pooled from {pooled[1]}x{pooled[0]}; give that as output_size"
        )
    return importer.block_builder.emit(ops.max_unpool2d(importer.env[data], importer.env[indices], (height, width)))


def _refused(node: fx.Node, _importer: _Importer) -> relax.Var:
    """Refuse what TVM 0.27 would replace by something else without a word: a training dropout, indices of zeros."""
    raise UserError(f"'{node.name}' ({node.target}) cannot be imported rightly; replace it")


def _is_call(node: fx.Node, operator: str) -> bool:
    return str(node.target) == f"aten.{operator}.default"


def _is(value: Any, expected: int) -> bool:
    return all(v == expected for v in (value if isinstance(value, list | tuple) else (value,)))
