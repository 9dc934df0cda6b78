"""What is written for LiteRT: each operator beside ONNX Runtime, and what has no counterpart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from enet_tvm.bench.runners.tflite_file import NotWritableError, write_tflite

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install 'enet-tvm[litert]'")

WRITTEN = {
    "same": "y = Conv <pads = [2, 2, 2, 2], dilations = [2, 2], strides = [1, 1]> (x, w, b)",
    "no bias": "y = Conv <pads = [0, 0, 0, 0], dilations = [1, 1], strides = [1, 1]> (x, w)",
    "stride": "y = Conv <pads = [1, 1, 1, 1], dilations = [1, 1], strides = [2, 2]> (x, w, b)",
    "one side": "y = Conv <pads = [0, 1, 2, 0], dilations = [1, 1], strides = [1, 1]> (x, w, b)",
    "transposed": "y = ConvTranspose <pads = [1, 1, 1, 1], output_padding = [1, 1], strides = [2, 2]> (x, t)",
    "pooling": "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
    "enlargement": """y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (x, , scales)""",
    "channels more": "y = Pad (x, pads)",
    "activations": "p = PRelu (x, slopes) q = Relu (x) c = Clip (x, zero, one) d = Sub (p, q) y = Add (d, c)",
    "constants": "s = Mul (x, slopes) y = Mul (s, one)",
    "concatenation": "r = Relu (x) y = Concat <axis = 1> (x, r)",
}
REFUSED = {
    "Sigmoid is not of the portable form": "y = Sigmoid (x)",
    "cut otherwise": "y = ConvTranspose <pads = [1, 1, 0, 0], strides = [2, 2]> (x, t)",
    "in groups": "y = Conv <group = 3, pads = [0, 0, 0, 0], dilations = [1, 1], strides = [1, 1]> (x, g)",
    "beyond the border": "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)",
    "otherwise than by repeating": """y = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric",
        nearest_mode = "floor"> (x, , scales)""",
    "other bounds than 0 and 1": "y = Clip (x, zero, six)",
    "other than channels": "y = Concat <axis = 2> (x, x)",
    r"constant of shape \(3, 6, 1\)": "y = Mul (x, rows)",
}


def model(nodes: str, path: Path) -> Path:
    """Write a graph from x, 1 x 3 x 6 x 8, to y, with constants that its nodes may name."""
    made = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 18]>
        graph (float[1, 3, 6, 8] x) => (float[n, c, h, w] y) {{ {nodes} }}"""
    )
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 3, 3, 3), "b": (5,), "t": (3, 5, 3, 3), "g": (3, 1, 1, 1), "slopes": (3, 1, 1), "rows": (3, 6, 1)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {"zero": np.float32(0), "one": np.float32(1), "six": np.float32(6)}
    constants |= {"scales": np.float32([1, 1, 2, 2]), "pads": np.int64([0, 0, 0, 0, 0, 2, 0, 0])}
    named = {name for node in made.graph.node for name in node.input}
    made.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in named
    )
    onnx.save(made, path)
    return path


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_operator_computes_what_it_does_in_onnx(kind, tmp_path):
    source = model(WRITTEN[kind], tmp_path / "source.onnx")
    write_tflite(source, tmp_path / "written.tflite")
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 8), np.float32)
    (expected,) = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    lite = interpreter.Interpreter(str(tmp_path / "written.tflite"), num_threads=1)
    lite.allocate_tensors()
    (source_tensor,), (target_tensor,) = lite.get_input_details(), lite.get_output_details()
    lite.set_tensor(source_tensor["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    lite.invoke()
    np.testing.assert_allclose(lite.get_tensor(target_tensor["index"]).transpose(0, 3, 1, 2), expected, rtol=0, atol=1e-5)


def test_a_file_says_that_float16_will_do_where_it_is_asked_to(tmp_path):
    """In the words of TensorFlow Lite's converter: XNNPACK keeps and adds float16 where the processor does, and only there."""
    from ai_edge_litert import schema_py_generated as schema

    source = model(WRITTEN["activations"], tmp_path / "source.onnx")
    said, outputs = [], []
    x = np.random.default_rng(1).standard_normal((1, 6, 8, 3), np.float32)
    for float16 in (False, True):
        path = tmp_path / f"{float16}.tflite"
        write_tflite(source, path, float16=float16)
        file = schema.ModelT.InitFromPackedBuf(path.read_bytes())
        said.append([(entry.name, bytes(file.buffers[entry.buffer].data)) for entry in file.metadata or []])
        lite = interpreter.Interpreter(str(path), num_threads=1)
        lite.allocate_tensors()
        lite.set_tensor(lite.get_input_details()[0]["index"], x)
        lite.invoke()
        outputs.append(lite.get_tensor(lite.get_output_details()[0]["index"]))
    assert said == [[], [(b"reduced_precision_support", b"fp16accfp16")]]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_counterpart_is_refused_and_no_file_left(reason, tmp_path):
    source = model(REFUSED[reason], tmp_path / "source.onnx")
    with pytest.raises(NotWritableError, match=reason):
        write_tflite(source, tmp_path / "written.tflite")
    assert list(tmp_path.iterdir()) == [source]
