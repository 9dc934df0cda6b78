"""`enet_tvm.rpc.gpu`: opening a device's GPU, and its architecture in NVIDIA's spelling."""

from types import SimpleNamespace

import pytest

from enet_tvm.errors import UserError
from enet_tvm.rpc.gpu import device_arch, open_gpu
from enet_tvm.rpc.session import open_session
from enet_tvm.runtime.gpu import missing_driver


@pytest.mark.parametrize(("version", "arch"), [("5.3", "sm_53"), (9.0, "sm_90"), ("12.0", "sm_120")])
def test_device_arch(version, arch):
    assert device_arch(SimpleNamespace(compute_version=version)) == arch


@pytest.mark.quick_cases(1)
@pytest.mark.skipif(missing_driver() is None, reason="this machine has a GPU")
def test_a_device_without_a_gpu_says_so(device_server):
    with (
        open_session(device_server.tracker, "board", wait=20) as session,
        pytest.raises(UserError, match=r"failed in opening its GPU: .*CUDA"),
    ):
        open_gpu(session)
