from __future__ import annotations

import sys

import pytest

from enet_tvm.errors import UserError
from enet_tvm.video.library import pyav


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    assert pyav().__name__ == "av"
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"video needs PyAV, .* run: pip install 'enet-tvm\[video\]'"):
        pyav()
