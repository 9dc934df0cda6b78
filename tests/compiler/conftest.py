from __future__ import annotations

import pytest

from enet_tvm.compiler.cuda.tools import CudaTools, find_cuda_tools
from enet_tvm.errors import UserError


@pytest.fixture(scope="session")
def tools() -> CudaTools:
    """NVRTC and ptxas; what needs them is skipped without them."""
    try:
        return find_cuda_tools()
    except UserError as error:
        pytest.skip(str(error))
