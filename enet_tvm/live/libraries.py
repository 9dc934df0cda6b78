"""Check for the libraries that serve the page, before anything else is begun."""

from __future__ import annotations

import importlib

from enet_tvm.errors import UserError


def check_libraries() -> None:
    """Raise UserError unless Starlette, uvicorn and websockets can be imported."""
    for name in ("starlette", "uvicorn", "websockets"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"live needs {name}, which cannot be imported ({error}); run: pip install 'enet-tvm[live]'"
            ) from error
