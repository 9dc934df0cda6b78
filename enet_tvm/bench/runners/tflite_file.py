"""An ONNX file in portable form as a file of LiteRT, which was TensorFlow Lite.

LiteRT's own converter for PyTorch cannot be installed beside this project: its xdsl wants a ``typing_extensions`` that is older
than pydantic's. It also takes PReLUs apart; here they are one operator each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from enet_tvm.files import atomic_file

Array = NDArray[Any]

SIGNATURE = "serving_default"
"""What the file calls its only way to be run; its input and output have the names of the ONNX file."""

_FLOAT16 = b"fp16accfp16"
"""What the file says of how its numbers may be kept and added."""


class NotWritableError(Exception):
    """A node that is not written here. Its message is a clause."""


def write_tflite(source: Path, path: Path, *, float16: bool = False) -> None:
    """Write an ONNX file in portable form as LiteRT's file; planes are N x H x W x C there, input and output included.

    Parameters
    ----------
    source : Path
        Of ``enet-tvm export --form portable``.
    path : Path
        File to write.
    float16 : bool
        Whether the file says that XNNPACK may compute in float16, which it then does where the processor has the arithmetic.

    Raises
    ------
    NotWritableError
        When a node of the file has no counterpart here.
    ImportError
        When the package ai-edge-litert, which brings the schema, is missing.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(source), strict_mode=True).graph
    content = _Writer(graph).content(float16)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


class _Writer:
    """One graph on its way: the tensors, buffers and operators that were made so far."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._graph = graph
        self._schema: Any = schema
        self._constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        self._shapes = {
            value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._buffers: list[Any] = [schema.BufferT()]  # the first stands for none
        self._tensors: list[Any] = []
        self._planes: dict[str, int] = {}
        self._codes: dict[int, Any] = {}
        self._operators: list[Any] = []

    def content(self, float16: bool = False) -> bytes:
        """Return the file's content."""
        import flatbuffers

        write: dict[str, Callable[[onnx.NodeProto], None]] = {
            "Conv": self._convolution,
            "ConvTranspose": self._transposed,
            "MaxPool": self._pooling,
            "Resize": self._enlargement,
            "Pad": self._padding,
            "PRelu": self._prelu,
            "Relu": lambda node: self._plain("RELU", node),
            "Clip": self._clip,
            "Add": lambda node: self._plain("ADD", node),
            "Sub": lambda node: self._plain("SUB", node),
            "Mul": lambda node: self._plain("MUL", node),
            "Concat": self._concatenation,
        }
        (source,), (target,) = self._graph.input, self._graph.output
        inputs = [self._plane(source.name)]
        for node in self._graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = onnx.numpy_helper.to_array(_attributes(node)["value"])
            elif node.op_type in write:
                write[node.op_type](node)
            else:
                raise NotWritableError(f"{node.op_type} is not of the portable form")
        schema = self._schema
        part = schema.SubGraphT(self._tensors, inputs, [self._plane(target.name)], self._operators, "main")
        model = schema.ModelT(3, list(self._codes.values()), [part], "enet-tvm", self._buffers)
        ends = [[schema.TensorMapT(each.name, self._plane(each.name))] for each in (source, target)]
        model.signatureDefs = [schema.SignatureDefT(*ends, SIGNATURE)]
        if float16:
            self._buffers.append(schema.BufferT(np.frombuffer(_FLOAT16, np.uint8)))
            model.metadata = [schema.MetadataT("reduced_precision_support", len(self._buffers) - 1)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _plane(self, name: str) -> int:
        """Return the number of the tensor with a value of the graph; a constant lies with its channels last too."""
        if name not in self._planes:
            if name in self._constants:
                self._planes[name] = self._constant(_channels_last(self._constants[name]))
            else:
                n, c, h, w = self._shapes[name]
                self._planes[name] = self._tensor([n, h, w, c], name)
        return self._planes[name]

    def _tensor(self, shape: list[int], name: str) -> int:
        self._tensors.append(self._schema.TensorT(shape, self._schema.TensorType.FLOAT32, 0, name))
        return len(self._tensors) - 1

    def _constant(self, value: Array) -> int:
        kind = {"float32": "FLOAT32", "int32": "INT32"}[value.dtype.name]
        self._buffers.append(self._schema.BufferT(np.frombuffer(value.tobytes(), np.uint8)))
        place = len(self._buffers) - 1
        self._tensors.append(
            self._schema.TensorT(list(value.shape), getattr(self._schema.TensorType, kind), place, f"constant{place}")
        )
        return len(self._tensors) - 1

    def _operator(self, name: str, inputs: list[int], output: int, options: Any = None, version: int = 1) -> None:
        code: int = getattr(self._schema.BuiltinOperator, name)
        # A reader of before 2020 knows the first of the two fields alone, which ends at 127.
        self._codes.setdefault(code, self._schema.OperatorCodeT(min(code, 127), None, version, code))
        kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        operator = self._schema.OperatorT(list(self._codes).index(code), inputs, [output])
        operator.builtinOptionsType, operator.builtinOptions = getattr(self._schema.BuiltinOptions, kind), options
        self._operators.append(operator)

    def _plain(self, name: str, node: onnx.NodeProto) -> None:
        options = getattr(self._schema, f"{name.capitalize()}OptionsT", None)
        self._operator(name, [self._plane(each) for each in node.input], self._plane(node.output[0]), options and options())

    def _convolution(self, node: onnx.NodeProto) -> None:
        schema, given = self._schema, _attributes(node)
        weight, bias = self._weights(node, given, (0, 2, 3, 1))
        (_, rows, columns, _), strides, dilations = weight.shape, given["strides"], given["dilations"]
        top, left, bottom, right = given["pads"]
        source = self._plane(node.input[0])
        same = [top, left] == [bottom, right] == [d * (k - 1) // 2 for d, k in zip(dilations, (rows, columns), strict=True)]
        if any(given["pads"]) and not (same and strides == [1, 1]):
            n, c, h, w = self._shapes[node.input[0]]
            wider = self._tensor([n, h + top + bottom, w + left + right, c], f"{node.input[0]}/padded")
            self._pad(source, [(0, 0), (top, bottom), (left, right), (0, 0)], wider)
            source, same = wider, False
        options = schema.Conv2DOptionsT(schema.Padding.SAME if same else schema.Padding.VALID, strides[1], strides[0])
        options.dilationHFactor, options.dilationWFactor = dilations
        self._operator("CONV_2D", [source, self._constant(weight), self._constant(bias)], self._plane(node.output[0]), options)

    def _transposed(self, node: onnx.NodeProto) -> None:
        schema, given = self._schema, _attributes(node)
        weight, bias = self._weights(node, given, (1, 2, 3, 0))
        # Rows and columns more at the end of the output are zeros more at the end of the kernel.
        more = given.get("output_padding", [0, 0])
        weight = np.pad(weight, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
        strides, over = given["strides"], [k - s for k, s in zip(weight.shape[1:3], given["strides"], strict=True)]
        if given["pads"] != [side // 2 for side in over] + [side - side // 2 for side in over]:
            raise NotWritableError(f"{node.name} is cut otherwise than LiteRT does")
        n, c, h, w = self._shapes[node.output[0]]
        shape = self._constant(np.array([n, h, w, c], np.int32))
        inputs = [shape, self._constant(weight), self._plane(node.input[0]), self._constant(bias)]
        options = schema.TransposeConvOptionsT(schema.Padding.SAME, strides[1], strides[0])
        self._operator("TRANSPOSE_CONV", inputs, self._plane(node.output[0]), options, version=3)  # 3 is the first with a bias

    def _weights(self, node: onnx.NodeProto, given: dict[str, Any], order: tuple[int, ...]) -> tuple[Array, Array]:
        """Return the weights of a convolution in this order of their axes, and its bias, which may be of zeros."""
        if given.get("group", 1) != 1:
            raise NotWritableError(f"{node.name} is a convolution in groups")
        weight = np.ascontiguousarray(self._constants[node.input[1]].transpose(order))
        return weight, self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)

    def _pooling(self, node: onnx.NodeProto) -> None:
        schema, given = self._schema, _attributes(node)
        if any(given.get("pads", ())):
            raise NotWritableError(f"{node.name} pools beyond the border")
        (down, right), (rows, columns) = given["strides"], given["kernel_shape"]
        options = schema.Pool2DOptionsT(schema.Padding.VALID, right, down, columns, rows)
        self._operator("MAX_POOL_2D", [self._plane(node.input[0])], self._plane(node.output[0]), options)

    def _enlargement(self, node: onnx.NodeProto) -> None:
        given = _attributes(node)
        how = (given["mode"], given["coordinate_transformation_mode"], given["nearest_mode"])
        if how != (b"nearest", b"asymmetric", b"floor"):
            raise NotWritableError(f"{node.name} enlarges otherwise than by repeating")
        sides = self._constant(np.array(self._shapes[node.output[0]][2:], np.int32))
        options = self._schema.ResizeNearestNeighborOptionsT()
        inputs = [self._plane(node.input[0]), sides]
        self._operator("RESIZE_NEAREST_NEIGHBOR", inputs, self._plane(node.output[0]), options)

    def _padding(self, node: onnx.NodeProto) -> None:
        pads = self._constants[node.input[1]].reshape(2, 4).T[[0, 2, 3, 1]]
        self._pad(self._plane(node.input[0]), pads, self._plane(node.output[0]))

    def _pad(self, source: int, pads: Any, output: int) -> None:
        """Put zeros around a tensor: for each axis so many before and so many behind."""
        self._operator("PAD", [source, self._constant(np.array(pads, np.int32))], output, self._schema.PadOptionsT())

    def _prelu(self, node: onnx.NodeProto) -> None:
        slopes = self._constants[node.input[1]].reshape(1, 1, -1)
        self._operator("PRELU", [self._plane(node.input[0]), self._constant(slopes)], self._plane(node.output[0]))

    def _clip(self, node: onnx.NodeProto) -> None:
        if [float(self._constants[name]) for name in node.input[1:]] != [0.0, 1.0]:
            raise NotWritableError(f"{node.name} clips at other bounds than 0 and 1")
        self._operator("RELU_0_TO_1", [self._plane(node.input[0])], self._plane(node.output[0]))

    def _concatenation(self, node: onnx.NodeProto) -> None:
        if _attributes(node)["axis"] != 1:
            raise NotWritableError(f"{node.name} concatenates other than channels")
        inputs = [self._plane(name) for name in node.input]
        self._operator("CONCATENATION", inputs, self._plane(node.output[0]), self._schema.ConcatenationOptionsT(axis=3))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _channels_last(value: Array) -> Array:
    """Return a constant that is broadcast over planes, C x 1 x 1 or of one number, as LiteRT broadcasts it."""
    if value.size != 1 and value.shape != (len(value), 1, 1):
        raise NotWritableError(f"a constant of shape {value.shape} is not one number, nor one for each channel")
    return value.reshape(-1) if value.size > 1 else value.reshape(())
