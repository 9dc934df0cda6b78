"""A new target file, from options or from another target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file
from enet_tvm.targets.loading import load_target
from enet_tvm.targets.spec import NATIVE, TargetSpec, make_target
from enet_tvm.toml_text import format_toml

_WHAT_PEAKS_DEPEND_ON = ("triple", "mcpu", "mattr", "cores", "core_list")


def new_target(name: str, changes: dict[str, Any], like: str | None = None, directory: str | Path = "targets") -> Path:
    """Write ``NAME.toml``, which `load_target` then finds.

    Parameters
    ----------
    name : str
        Name of the target.
    changes : dict
        Fields of `TargetSpec`, by name, as a file has them.
    like : str, optional
        Target to take all other keys from but its aliases. Its roofline is left out when the processor or its cores are others.
    directory : str or Path
        Directory to write the file to.

    Raises
    ------
    UserError
        When a key does not serve, LLVM does not know the processor, or the file exists.
    """
    if name == NATIVE:
        raise UserError(f"'{NATIVE}' is this machine itself; choose another name")
    spec = make_target({**(_copied(like, changes) if like else {}), **changes, "name": name}, f"target {name}")
    spec.to_tvm()
    path = Path(directory) / f"{name}.toml"
    if path.exists():
        raise UserError(f"{path} exists; choose another name, or edit it")
    with atomic_file(path) as temporary:
        temporary.write_text(to_toml(spec), encoding="utf-8")
    return path


def _copied(like: str, changes: dict[str, Any]) -> dict[str, Any]:
    other = load_target(like)
    content = other.model_dump(mode="json", exclude_none=True)
    if other.rpc_key == other.name:
        del content["rpc_key"]
    content.pop("aliases")
    # Each follows from the other, or is none of the new machine's.
    for key, other_key in (("cores", "core_list"), ("core_list", "cores")):
        if key in changes:
            content.pop(other_key)
    # The peaks of a target with a GPU are the GPU's, whatever its CPU.
    peaks = ("gpu",) if other.gpu is not None else _WHAT_PEAKS_DEPEND_ON
    if any(key in changes and changes[key] != content.get(key) for key in peaks):
        content.pop("roofline", None)
    return content


def to_toml(spec: TargetSpec) -> str:
    """Return the content of a target's file, without keys that only say the default."""
    content = spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    del content["name"]
    if spec.rpc_key == spec.name:
        del content["rpc_key"]
    return format_toml(content)
