"""ONNX Runtime: the portable form, of which it executes fewer instructions than of the window form."""

from __future__ import annotations

from counting.peer import Given, Peer, Program, python_program
from enet_tvm.bench.runners.portable_form import exported

_PROGRAM = """
import sys
import numpy, onnxruntime
picture, out, dtype, height, width, model = *sys.argv[1:4], *map(int, sys.argv[4:6]), sys.argv[6]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
net = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
x = numpy.fromfile(picture, "float32").reshape(1, 3, height, width)
for _ in passes():
    (logits,) = net.run(None, {"picture": x})
logits.tofile(out)
"""


def _prepare(given: Given) -> Program:
    return python_program(given, ("onnxruntime", "flatbuffers", "packaging", "protobuf"), _PROGRAM, exported(given.case))


PEER = Peer("ONNX Runtime", ("float32",), _prepare)
