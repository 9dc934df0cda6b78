from __future__ import annotations

import ast
import sys
from pathlib import Path

from enet_tvm.device_bundle.python_modules import module_files

ROOTS = ("enet_tvm.rpc.server", "enet_tvm.runtime.__main__")


def test_what_a_board_gets() -> None:
    files = module_files(*ROOTS)
    assert {
        "enet_tvm/__init__.py",
        "enet_tvm/artifact.py",
        "enet_tvm/rpc/__init__.py",
        "enet_tvm/rpc/server.py",
        "enet_tvm/rpc/session_process.py",
        "enet_tvm/runtime/segmenter.py",
        "enet_tvm/runtime/pictures.py",
    } <= set(files)
    assert list(files) == sorted(files)
    assert all(path.is_file() for path in files.values())


def test_no_compiler_and_no_pytorch() -> None:
    """Whatever these modules import, be it late, is Python's own, TVM's binding, or what the README asks of a board."""
    allowed = {*sys.stdlib_module_names, "enet_tvm", "tvm_ffi", "numpy", "PIL", "pydantic"}
    for name, path in module_files(*ROOTS).items():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert {module.partition(".")[0] for module in modules} <= allowed, name


def test_type_checkers_imports_do_not_count(tmp_path: Path) -> None:
    # enet_tvm.runtime names its segmenter for type checkers, and imports it late.
    assert "enet_tvm/targets/__init__.py" not in module_files("enet_tvm.runtime.segmenter")
    assert "enet_tvm/runtime/segmenter.py" in module_files("enet_tvm.runtime")
