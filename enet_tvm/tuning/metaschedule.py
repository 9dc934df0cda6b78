"""MetaSchedule, imported in seconds instead of half a minute."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError

_NEEDED = ("cloudpickle", "psutil", "scipy", "xgboost")
"""Packages that MetaSchedule imports without requiring them of pip."""
_INTRINSICS = "tvm.s_tir.tensor_intrin"
_WITHOUT_TORCH = Path(__file__).parent / "without_torch"


def load_meta_schedule() -> Any:
    """Return ``tvm.s_tir.meta_schedule``.

    Its `TuneContext` imports every tensor intrinsic of TVM: 248 kernels are parsed, and the parser asks ``inspect.stack()``,
    which searches all of ``sys.modules`` for every frame, 25 s of CPU. No rule of ours wants one, so it finds a package that
    has imported none of them yet; who wants one can still import its module.

    Raises
    ------
    UserError
        When a package that it needs is not installed.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"tuning needs {', '.join(missing)}; run: pip install 'enet-tvm[tune]'")
    import tvm  # noqa: F401

    if _INTRINSICS not in sys.modules and (spec := importlib.util.find_spec(_INTRINSICS)) is not None:
        sys.modules[_INTRINSICS] = importlib.util.module_from_spec(spec)
    from tvm.s_tir import meta_schedule

    return meta_schedule


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
