"""MNN: the portable form, converted by its own converter, and run by the device's Python."""

from __future__ import annotations

from counting.peer import Given, Peer, Program, python_program
from enet_tvm.bench.runners import mnn

_PROGRAM = """
import sys
import numpy
from MNN import expr, nn
picture, out, dtype, height, width, model = *sys.argv[1:4], *map(int, sys.argv[4:6]), sys.argv[6]
how = {"backend": "CPU", "numThread": 1, "precision": "low" if dtype == "float16" else "high"}
how |= {"memory": 2} if dtype == "int8" else {}  # its name has no effect
manager = nn.create_runtime_manager((how,))
net = nn.load_module_from_file(model, ["picture"], ["logits"], runtime_manager=manager)
x = numpy.fromfile(picture, "float32").reshape(1, 3, height, width)
given = expr.placeholder([1, 3, height, width], expr.NCHW)
for _ in passes():
    given.write(x)
    (logits,) = net.forward([given])
    planes = expr.convert(logits, expr.NCHW)
    read = planes.read()  # a view, which does not keep the memory
numpy.array(read, "float32").tofile(out)
"""


def _prepare(given: Given) -> Program:
    return python_program(given, ["MNN"], _PROGRAM, mnn.converted(given.case, given.dtype))


PEER = Peer("MNN", ("float32", "float16", "int8"), _prepare)
"""Its "high" and "low" precision, the latter float16 where the processor has the arithmetic, and its "low" memory: 8 bits."""
