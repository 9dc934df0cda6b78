from __future__ import annotations

import pytest
from recording_driver import RecordingDriver

from enet_tvm.errors import UserError


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> RecordingDriver:
    """A machine with a GPU, but for the GPU: its driver records what it is called for."""
    try:
        return RecordingDriver.build(tmp_path_factory.mktemp("cuda"))
    except UserError as error:
        pytest.skip(str(error))
