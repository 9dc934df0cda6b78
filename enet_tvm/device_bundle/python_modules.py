"""The modules of this package that a board's Python needs, found by following their imports."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def module_files(*roots: str) -> dict[str, Path]:
    """Return the files of modules and of all modules of this package that they import, by path in the package's parent.

    Imports inside functions count, those for type checkers alone do not.

    Parameters
    ----------
    *roots : str
        Names of modules, such as ``enet_tvm.rpc.server``.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or (key := str(path.relative_to(PACKAGE.parent))) in found:
            continue
        found[key] = path
        waiting.extend(_imports(path))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return dict(sorted(found.items()))


def _file(name: str) -> Path | None:
    path = PACKAGE.parent / name.replace(".", "/")
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imports(path: Path) -> list[str]:
    names: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            # What is imported may be a module itself.
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return [name for name in names if name.partition(".")[0] == PACKAGE.name]
