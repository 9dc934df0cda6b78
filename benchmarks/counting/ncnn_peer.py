"""ENet for ncnn: batch normalisation folded, unpooling as arithmetic, converted by pnnx, and run by the device's Python."""

from __future__ import annotations

import copy
import itertools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from enet_tvm.errors import UserError
from enet_tvm.size import Size

NCNN, NUMPY, PYTHON = "1.0.20261020", "1.26.4", "3.11"
DTYPES = ("float32", "float16", "bfloat16")
"""In which it stores what is between layers, and computes as far as it can."""
_LARGE = {"float32": 1e30, "float16": 1e4, "bfloat16": 1e30}
"""What a difference between a value and its window's maximum is multiplied by: beyond one, whatever the difference. The factor
must be a number of the type, so that in float16 differences below a ten-thousandth count in part."""

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


class _Affine(nn.Module):
    """A batch normalisation that follows no convolution, as a 1x1 convolution of each channel."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.conv = nn.Conv2d(len(factor), len(factor), 1, groups=len(factor))
        self.conv.weight.data = factor.detach().view(-1, 1, 1, 1).clone()
        self.conv.bias.data = (norm.bias - norm.running_mean * factor).detach().clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class _Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        pooled = F.max_pool2d(x, 2, 2)
        return pooled, (x, pooled)


class _Unpool(nn.Module):
    """Unpooling without indices: a value goes wherever its window has its maximum, twice where that is there twice."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.large = large

    def forward(self, x: torch.Tensor, kept: Any) -> torch.Tensor:
        before, pooled = kept
        hit = torch.clamp((before - F.interpolate(pooled, scale_factor=2.0)) * self.large + 1.0, 0.0, 1.0)
        return hit * F.interpolate(x, scale_factor=2.0)


def portable(network: nn.Module, dtype: str = "float32") -> nn.Module:
    """Return an ENet in operators that embedded runtimes have, for one that computes in `dtype`."""
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        for name, child in list(block.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout2d):
                setattr(block, name, nn.Identity())
        if isinstance(block, nn.Sequential):
            items = list(block.named_children())
            for (first, conv), (second, norm) in itertools.pairwise(items):
                if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                    folded = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
                    setattr(block, first, folded)
                    setattr(block, second, nn.Identity())
    network.initial.norm = _Affine(network.initial.norm)
    for name in ("bottleneck1_0", "bottleneck2_0"):
        getattr(network, name).pool = _Pool()
    for name in ("bottleneck4_0", "bottleneck5_0"):
        getattr(network, name).unpool = _Unpool(_LARGE[dtype])
    return network.eval()


def convert(network: nn.Module, size: Size, folder: Path, dtype: str = "float32") -> Path:
    """Write an ENet as ncnn reads it and return the path without its endings; needs the package ``pnnx``.

    Weights are stored in float32; in which type ncnn computes, the program says.

    Raises
    ------
    UserError
        When pnnx is missing or fails.
    """
    program = shutil.which("pnnx", path=Path(sys.executable).parent) or shutil.which("pnnx")
    if program is None:
        raise UserError("ncnn's models are made by pnnx, which is not here; pip install 'enet-tvm[ncnn]'")
    shape = (1, 3, size.height, size.width)
    torch.jit.trace(portable(network, dtype), torch.zeros(shape), check_trace=False).save(str(folder / "enet.pt"))
    command = [program, "enet.pt", f"inputshape=[{','.join(map(str, shape))}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / "enet.ncnn.param").is_file():
        raise UserError(f"pnnx failed: {(done.stderr or done.stdout)[-300:]}")
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
