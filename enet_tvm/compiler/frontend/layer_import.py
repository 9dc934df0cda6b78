"""PyTorch to Relax layer by layer, for networks of common layers, in a tenth of the time of ``torch.export``.

``torch.export`` runs a network on fake tensors several times over, and loads TorchDynamo for it, which takes seconds. Where a
forward only hands tensors from layer to layer, as those of this project do, symbolic tracing finds the same at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import tvm
from torch import Tensor, fx, nn
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.frontend.layer_names import named_after_layers


def from_layers(network: nn.Module, input_shape: tuple[int, int, int, int]) -> tvm.IRModule | None:
    """Return the Relax module of a network in eval mode, equal to the one imported through ``torch.export``.

    Parameters
    ----------
    network : torch.nn.Module
        Network in eval mode that takes one float32 tensor and returns one.
    input_shape : tuple of int
        N x C x H x W of that tensor.

    Returns
    -------
    tvm.IRModule or None
        Module with one function ``main``. None for a network that holds anything else than the layers and functions of this
        file, or that does not take this shape: ``torch.export`` can import it, or says why not.
    """
    try:
        _require(_is_its_type(network))
        return _LayerImporter(network).module(_LayerTracer().trace(network), input_shape)
    except Exception:  # a forward that is given a symbol in place of a tensor may raise anything
        return None


class _UnknownError(Exception):
    """A network holds what is not imported here."""


class _LayerTracer(fx.Tracer):
    """Tracer to which the layers that are imported here are single nodes, as all of PyTorch's are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _LAYERS or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class _WindowIndices:
    """Window indices of a max pooling, and the height and width that it pooled.

    They are not PyTorch's indices, so that only an unpooling may take them.
    """

    variable: relax.Var
    pooled: tuple[int, int]


class _LayerImporter:
    """Importer of one traced network.

    Parameters
    ----------
    network : torch.nn.Module
        Network that was traced.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._normalised = relax.BlockBuilder().normalize
        self._bindings: list[relax.VarBinding] = []
        self._constants: dict[Tensor, relax.Constant] = {}
        self._layers: dict[str, str] = {}

    def module(self, graph: fx.Graph, input_shape: tuple[int, int, int, int]) -> tvm.IRModule:
        """Return the Relax module of the traced network.

        Raises
        ------
        _UnknownError
            When it holds what is not imported here. What TVM raises where shapes do not fit passes through.
        """
        *nodes, output = graph.nodes
        given, *nodes = nodes
        _require(given.op == "placeholder" and all(node.op != "placeholder" for node in nodes))
        x = relax.Var(str(given.target), relax.TensorType(input_shape, "float32"))
        values: dict[fx.Node, Any] = {given: x}
        for node in nodes:
            values[node] = self._value(node, values)
        result: Any = fx.map_arg(output.args[0], values.__getitem__)
        _require(isinstance(result, relax.Var) and result is not x)
        returned = relax.Var("gv", result.ty)
        block = relax.DataflowBlock([*self._bindings, relax.VarBinding(returned, result)])
        main = relax.Function([x], relax.SeqExpr([block], returned), returned.ty, is_pure=True)
        return named_after_layers(tvm.IRModule({"main": main.with_attr("global_symbol", "main")}), self._layers)

    def emit(self, value: relax.Expr) -> relax.Var:
        """Add a binding, and return its variable."""
        value = self._normalised(value)
        variable = relax.DataflowVar(f"lv{len(self._bindings)}", value.ty)
        self._bindings.append(relax.VarBinding(variable, value))
        return variable

    def constant(self, tensor: Tensor | None) -> relax.Constant:
        """Return a parameter or buffer as a constant, the same one each time."""
        if tensor is None or tensor.dtype != torch.float32:
            raise _UnknownError
        if tensor not in self._constants:
            self._constants[tensor] = relax.const(tensor.detach().cpu().numpy())
        return self._constants[tensor]

    def _value(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """Return what a node of the graph makes of the values before it, named after the layer around it."""
        arguments: Any = fx.map_arg(node.args, values.__getitem__)
        options: Any = fx.map_arg(node.kwargs, values.__getitem__)
        if node.target is operator.getitem:
            pair, index = arguments
            _require(isinstance(pair, tuple))
            return pair[index]
        convert = _FUNCTIONS.get(node.target)
        if node.op == "call_module":
            module = self._network.get_submodule(str(node.target))
            if type(module) is nn.Identity and _is_its_type(module):
                return arguments[0]
            convert = partial(_conversion(module), layer=module)
        if convert is None:
            raise _UnknownError
        value = convert(self, *arguments, **options)
        stack = node.meta.get("nn_module_stack")
        layer = next(reversed(stack.values()))[0] if stack else ""
        for item in value if isinstance(value, tuple) else (value,):
            self._layers[(item.variable if isinstance(item, _WindowIndices) else item).name] = layer
        return value


def _is_its_type(module: nn.Module) -> bool:
    """Whether a call of a module is its type's forward and nothing else; tracing a network or a single node sees no more."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _conversion(layer: nn.Module) -> Callable[..., Any]:
    """Return the function that imports a layer."""
    _require(type(layer) in _LAYERS and _is_its_type(layer) and not layer.training)
    return _LAYERS[type(layer)]


def _conv2d(importer: _LayerImporter, x: relax.Var, layer: nn.Conv2d) -> relax.Var:
    _require(layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
    weight = importer.constant(layer.weight)
    call = relax.op.nn.conv2d(
        x, weight,
        strides=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups, out_dtype="float32",
    )  # fmt: skip
    return _biased(importer, layer, call)


def _conv_transpose2d(importer: _LayerImporter, x: relax.Var, layer: nn.ConvTranspose2d) -> relax.Var:
    weight = importer.constant(layer.weight)
    call = relax.op.nn.conv2d_transpose(
        x, weight,
        strides=layer.stride, padding=layer.padding, output_padding=layer.output_padding, dilation=layer.dilation,
        groups=layer.groups, kernel_layout="IOHW", out_dtype="float32",
    )  # fmt: skip
    return _biased(importer, layer, call)


def _biased(importer: _LayerImporter, layer: nn.Conv2d | nn.ConvTranspose2d, call: relax.Call) -> relax.Var:
    convolved = importer.emit(call)
    if layer.bias is None:
        return convolved
    bias = importer.emit(relax.op.reshape(importer.constant(layer.bias), (1, -1, 1, 1)))
    return importer.emit(relax.op.add(convolved, bias))


def _batch_norm(importer: _LayerImporter, x: relax.Var, layer: nn.BatchNorm2d) -> relax.Var:
    normalised = importer.emit(
        relax.op.nn.batch_norm(
            x,
            *map(importer.constant, (layer.weight, layer.bias, layer.running_mean, layer.running_var)),
            axis=1, epsilon=layer.eps, momentum=layer.momentum or 0.0, training=False,
        )
    )  # fmt: skip
    return importer.emit(relax.TupleGetItem(normalised, 0))


def _prelu(importer: _LayerImporter, x: relax.Var, layer: nn.PReLU) -> relax.Var:
    return importer.emit(relax.op.nn.prelu(x, importer.constant(layer.weight), axis=1))


def _relu(importer: _LayerImporter, x: relax.Var, layer: nn.ReLU) -> relax.Var:
    _require(not layer.inplace)
    return importer.emit(relax.op.nn.relu(x))


def _dropout(_: _LayerImporter, x: relax.Var, layer: nn.Dropout2d) -> relax.Var:
    _require(isinstance(x, relax.Var))
    return x


def _max_pool2d(importer: _LayerImporter, x: relax.Var, layer: nn.MaxPool2d) -> relax.Var | tuple[relax.Var, _WindowIndices]:
    kernel, stride, padding, dilation = (
        tuple(value) if isinstance(value, tuple | list) else (value, value)
        for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    if not layer.return_indices:
        return importer.emit(relax.op.nn.max_pool2d(x, kernel, stride, padding, dilation, layer.ceil_mode))
    _require(kernel == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1) and not layer.ceil_mode)
    _, _, height, width = (int(extent) for extent in x.ty.shape.values)
    pair = importer.emit(ops.max_pool2d_with_window(x))
    maxima, indices = (importer.emit(relax.TupleGetItem(pair, i)) for i in range(2))
    return maxima, _WindowIndices(indices, (height, width))


def _max_unpool2d(importer: _LayerImporter, x: relax.Var, window: _WindowIndices, layer: nn.MaxUnpool2d) -> relax.Var:
    height, width = (2 * int(extent) for extent in x.ty.shape.values[2:])
    _require(layer.kernel_size == layer.stride == (2, 2) and layer.padding == (0, 0) and window.pooled == (height, width))
    return importer.emit(ops.max_unpool2d(x, window.variable, window.pooled))


def _add(importer: _LayerImporter, a: relax.Var, b: relax.Var) -> relax.Var:
    _require(isinstance(a, relax.Var) and isinstance(b, relax.Var))
    return importer.emit(relax.op.add(a, b))


def _cat(importer: _LayerImporter, tensors: list[relax.Var], dim: int = 0) -> relax.Var:
    return importer.emit(relax.op.concat(list(tensors), dim))


def _pad(
    importer: _LayerImporter, x: relax.Var, pad: tuple[int, ...], mode: str = "constant", value: float | None = None
) -> relax.Var:
    _require(mode == "constant" and value is None)
    # PyTorch pads the last axis first.
    widths = [width for i in reversed(range(0, len(pad), 2)) for width in pad[i : i + 2]]
    return importer.emit(relax.op.nn.pad(x, [0] * (2 * x.ty.ndim - len(widths)) + widths))


def _require(known: bool) -> None:
    if not known:
        raise _UnknownError


_LAYERS: Mapping[type[nn.Module], Callable[..., Any]] = MappingProxyType(
    {
        nn.BatchNorm2d: _batch_norm,
        nn.Conv2d: _conv2d,
        nn.ConvTranspose2d: _conv_transpose2d,
        nn.Dropout: _dropout,
        nn.Dropout2d: _dropout,
        nn.MaxPool2d: _max_pool2d,
        nn.MaxUnpool2d: _max_unpool2d,
        nn.PReLU: _prelu,
        nn.ReLU: _relu,
    }
)

_FUNCTIONS: Mapping[Any, Callable[..., relax.Var]] = MappingProxyType(
    {operator.add: _add, torch.cat: _cat, nn.functional.pad: _pad}
)
