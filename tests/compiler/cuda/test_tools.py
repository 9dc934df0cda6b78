from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda import tools as module
from enet_tvm.compiler.cuda.tools import CudaTools, find_cuda_tools
from enet_tvm.errors import UserError


def test_all_of_them_are_there(tools: CudaTools):
    assert tools.nvrtc.is_file()
    assert tools.ptxas.is_file()
    headers = [(path / name).exists() for path in tools.includes for name in ("cuda_fp16.h", "crt", "cuda/std/cstdint")]
    assert sum(headers) >= 3


@pytest.mark.parametrize("missing", ["cuda_nvrtc", "cuda_nvcc", "cuda_runtime", "cuda_cccl"])
def test_without_one_of_the_packages(tools: CudaTools, monkeypatch: pytest.MonkeyPatch, missing: str):
    find = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name.endswith(missing) else find(name))
    with pytest.raises(UserError, match=r"the CUDA compiler is not installed.*; run: pip install 'enet-tvm\[cuda\]'$"):
        find_cuda_tools()


def test_without_any_package_of_nvidia(monkeypatch: pytest.MonkeyPatch):
    def find(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module.importlib.util, "find_spec", find)
    with pytest.raises(UserError, match="pip install"):
        find_cuda_tools()
