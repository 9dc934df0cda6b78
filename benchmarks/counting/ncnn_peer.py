"""ncnn: the portable form, converted by pnnx, and run by the device's Python."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from counting.peer import Given, Peer, Program, python_program
from enet_tvm.bench.runners import ncnn
from enet_tvm.networks.portable import LARGE, LARGE_FLOAT16, portable
from enet_tvm.size import Size

_PROGRAM = """
import sys
import ncnn, numpy
picture, out, dtype, height, width, model = *sys.argv[1:4], *map(int, sys.argv[4:6]), sys.argv[6]
net = ncnn.Net()
net.opt.num_threads = 1
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = dtype == "float16"
net.opt.use_bf16_storage = dtype == "bfloat16"
assert net.load_param(model + ".ncnn.param") == 0 and net.load_model(model + ".ncnn.bin") == 0
x = numpy.fromfile(picture, "float32").reshape(3, height, width)
for _ in passes():
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x))
    _, logits = extractor.extract("out0")
numpy.array(logits).astype("float32").tofile(out)
"""


def _prepare(given: Given) -> Program:
    model = convert(given.network, given.case.size, given.case.directory, given.dtype)
    return python_program(given, ["ncnn"], _PROGRAM, model)


def convert(network: nn.Module, size: Size, folder: Path, dtype: str = "float32") -> Path:
    """Write an ENet as ncnn reads it and return the path without its endings; needs the package ``pnnx``.

    Weights are stored in float32; in which type ncnn computes, the program says.

    Raises
    ------
    RunnerMissingError
        When pnnx is missing or fails.
    """
    form = portable(network, LARGE_FLOAT16 if dtype == "float16" else LARGE)
    shape = (1, 3, size.height, size.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # that extents become constants, which they are
        torch.jit.trace(form, torch.zeros(shape), check_trace=False).save(str(folder / "enet.pt"))
    ncnn.convert(folder / "enet.pt", shape)
    return folder / "enet"


PEER = Peer("ncnn", ("float32", "float16", "bfloat16"), _prepare)
"""In the data type is what lies between layers; it computes in it as far as it can."""
