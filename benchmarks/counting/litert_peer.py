"""LiteRT with XNNPACK: the portable form, written as its file, and run by the device's Python."""

from __future__ import annotations

from counting.peer import Given, Peer, Program, python_program
from enet_tvm.bench.runners import litert

_PROGRAM = """
import sys
import numpy
from ai_edge_litert.interpreter import Interpreter
picture, out, dtype, height, width, model = *sys.argv[1:4], *map(int, sys.argv[4:6]), sys.argv[6]
net = Interpreter(model, num_threads=1)
net.allocate_tensors()
(source,), (target,) = net.get_input_details(), net.get_output_details()
x = numpy.fromfile(picture, "float32").reshape(1, 3, height, width)
x = numpy.ascontiguousarray(x.transpose(0, 2, 3, 1))
for _ in passes():
    net.set_tensor(source["index"], x)
    net.invoke()
numpy.ascontiguousarray(net.get_tensor(target["index"]).transpose(0, 3, 1, 2)).tofile(out)
"""
_PACKAGES = ("ai-edge-litert", "flatbuffers", "tqdm", "typing_extensions", "backports.strenum", "protobuf", "ml_dtypes")


def _prepare(given: Given) -> Program:
    return python_program(given, _PACKAGES, _PROGRAM, litert.written(given.case, given.dtype))


PEER = Peer("LiteRT", ("float32", "float16", "int8"), _prepare)
