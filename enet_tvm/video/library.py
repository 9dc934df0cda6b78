"""PyAV, imported when it is first needed."""

from __future__ import annotations

import importlib
from typing import Any

from enet_tvm.errors import UserError


def pyav() -> Any:
    """Return the module ``av``.

    Raises
    ------
    UserError
        When it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(f"video needs PyAV, which cannot be imported ({error}); run: pip install 'enet-tvm[video]'") from error
