"""ENet for ncnn: the portable form, converted by pnnx, and run by the device's Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from enet_tvm.bench.runners import RunnerMissingError, ncnn
from enet_tvm.errors import UserError
from enet_tvm.networks.portable import LARGE, LARGE_FLOAT16, portable
from enet_tvm.size import Size

NCNN, NUMPY, PYTHON = "1.0.20261020", "1.26.4", "3.11"
DTYPES = ("float32", "float16", "bfloat16")
"""In which it stores what is between layers, and computes as far as it can."""

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import ncnn, numpy
model, picture, out, dtype, passes, height, width = *sys.argv[2:6], *map(int, sys.argv[6:9])
net = ncnn.Net()
net.opt.num_threads = 1
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = dtype == "float16"
net.opt.use_bf16_storage = dtype == "bfloat16"
assert net.load_param(model + ".ncnn.param") == 0 and net.load_model(model + ".ncnn.bin") == 0
x = numpy.fromfile(picture, "float32").reshape(3, height, width)
for _ in range(passes):
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x))
    _, logits = extractor.extract("out0")
numpy.array(logits).astype("float32").tofile(out)
"""


def convert(network: nn.Module, size: Size, folder: Path, dtype: str = "float32") -> Path:
    """Write an ENet as ncnn reads it and return the path without its endings; needs the package ``pnnx``.

    Weights are stored in float32; in which type ncnn computes, the program says.

    Raises
    ------
    UserError
        When pnnx is missing or fails.
    """
    form = portable(network, LARGE_FLOAT16 if dtype == "float16" else LARGE)
    shape = (1, 3, size.height, size.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # that extents become constants, which they are
        torch.jit.trace(form, torch.zeros(shape), check_trace=False).save(str(folder / "enet.pt"))
    try:
        ncnn.convert(folder / "enet.pt", shape)
    except RunnerMissingError as error:
        raise UserError(str(error)) from error
    return folder / "enet"


def device_packages(directory: Path) -> Path:
    """Return the folder with ncnn and NumPy for aarch64, downloaded the first time."""
    site = directory / f"ncnn-{NCNN}"
    if not site.is_dir():
        wheels = directory / "wheels"
        options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={wheels}"]
        platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64"]
        names = [f"ncnn=={NCNN}", f"numpy=={NUMPY}"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *platforms, *names], check=True)
        unpacked = directory / "unpacking"
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        shutil.rmtree(wheels)
        unpacked.rename(site)
    return site
