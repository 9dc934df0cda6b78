"""MetaSchedule, imported in seconds instead of half a minute."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError

_NEEDED = ("cloudpickle", "psutil", "scipy", "xgboost")
"""Packages that MetaSchedule imports without requiring them of pip."""
_WITHOUT_TORCH = Path(__file__).parent / "without_torch"


def load_meta_schedule() -> Any:
    """Return ``tvm.s_tir.meta_schedule``.

    `TuneContext` imports every tensor intrinsic of TVM. Each of those 248 kernels is parsed, and the parser asks
    ``inspect.stack()``, which searches all of ``sys.modules`` for every frame: 25 s of CPU, to find file names that
    nobody reads. Without that search it is 3 s.

    Raises
    ------
    UserError
        When a package that it needs is not installed.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"tuning needs {', '.join(missing)}; run: pip install 'enet-tvm[tune]'")
    # Before the search is switched off: PyTorch, which TVM imports, needs it.
    import tvm

    with _no_module_search():
        import tvm.s_tir.tensor_intrin  # noqa: F401
    from tvm.s_tir import meta_schedule

    return meta_schedule


@contextmanager
def _no_module_search() -> Iterator[None]:
    search = inspect.getmodule
    inspect.getmodule = lambda *_, **__: None
    try:
        yield
    finally:
        inspect.getmodule = search


@contextmanager
def lean_workers() -> Iterator[None]:
    """Let processes started within import TVM in a third of the time, without PyTorch, with which they exchange no tensors.

    TVM's bindings import PyTorch wherever it is installed. One that cannot be imported, first on the path, is as good as none.
    """
    name = "PYTHONPATH"
    before = os.environ.get(name)
    os.environ[name] = os.pathsep.join(filter(None, (str(_WITHOUT_TORCH), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
