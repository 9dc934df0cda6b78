"""ncnn as a runner, given the network in portable form by pnnx, its converter."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.portable_form import exported


class NcnnRunner(Runner):
    """ncnn on the CPU.

    Parameters
    ----------
    case : Case
        Case that is run.
    precision : {"float32", "bfloat16"}
        Data type that layers exchange; ncnn adds in float32 either way.

    Raises
    ------
    RunnerMissingError
        When ncnn or pnnx is missing, or pnnx does not convert the network.
    """

    def __init__(self, case: Case, precision: Precision = "float32") -> None:
        try:
            import ncnn
        except ImportError as error:
            raise RunnerMissingError("ncnn is not installed; run: pip install 'enet-tvm[ncnn]'") from error
        self.precision = precision
        self.description = f"ncnn {ncnn.__version__}"
        self._ncnn: Any = ncnn
        self._files = _converted(case)
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = case.threads
        options.use_bf16_storage = precision == "bfloat16"
        # Where the processor has the instructions, ncnn would compute in float16 unasked.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        parameters, weights = self._files
        if self._net.load_param(str(parameters)) or self._net.load_model(str(weights)):
            raise RunnerMissingError(
                f"ncnn does not read what pnnx made of the network; install the release of pnnx for {ncnn.__version__}"
            )
        (self._input,), (self._output,) = self._net.input_names(), self._net.output_names()

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        extractor = self._net.create_extractor()
        extractor.input(self._input, self._ncnn.Mat(x[0]))
        status, logits = extractor.extract(self._output)
        if status:
            raise RuntimeError(f"ncnn's forward pass ended with status {status}")
        return np.array(logits, np.float32)[None]

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the files of layers and of weights."""
        return self._files

    def close(self) -> None:
        """Give back the network's memory."""
        self._net.clear()


def float32(case: Case) -> Runner:
    """Return ncnn in float32."""
    return NcnnRunner(case)


def bfloat16(case: Case) -> Runner:
    """Return ncnn with bfloat16 between its layers."""
    return NcnnRunner(case, "bfloat16")


def convert(source: Path, shape: Sequence[int]) -> tuple[Path, Path]:
    """Return ncnn's files of layers and of weights, which pnnx writes beside a network.

    Parameters
    ----------
    source : Path
        The network in portable form, ONNX or traced by PyTorch; weights become float32.
    shape : sequence of int
        Shape of the input, N x C x H x W.

    Raises
    ------
    RunnerMissingError
        When pnnx is missing, or does not convert the network.
    """
    command = [str(_converter()), source.name, f"inputshape=[{','.join(map(str, shape))}]", "fp16=0"]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    files = _files(source)
    if done.returncode or not all(file.is_file() for file in files):
        reason = (done.stderr or done.stdout).strip()[-200:]
        raise RunnerMissingError(f"pnnx does not convert the network ({reason}); take another release of it")
    return files


def _converter() -> Path:
    found = importlib.util.find_spec("pnnx")
    if found is None or found.origin is None:
        raise RunnerMissingError("pnnx, which converts for ncnn, is not installed; run: pip install 'enet-tvm[ncnn]'")
    # The program itself: what pip makes a command of starts it by way of PyTorch.
    return Path(found.origin).with_name("pnnx")


def _files(source: Path) -> tuple[Path, Path]:
    """Return how pnnx calls what it makes of a network."""
    return source.with_suffix(".ncnn.param"), source.with_suffix(".ncnn.bin")


def _converted(case: Case) -> tuple[Path, Path]:
    """Return ncnn's files of a case's network, made once."""
    folder = case.directory / f"{case.size}-ncnn"
    source = folder / "enet.onnx"
    files = _files(source)
    if not all(file.is_file() for file in files):
        _converter()  # before the export, which takes seconds
        if not source.is_file():
            folder.mkdir(exist_ok=True)
            source.write_bytes(exported(case).read_bytes())
        convert(source, case.input_shape)
    return files
