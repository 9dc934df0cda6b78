"""A target as people write it, and as TVM takes it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enet_tvm.errors import UserError
from enet_tvm.places import search_roots

if TYPE_CHECKING:
    import tvm

NATIVE = "native"


class TargetSpec(BaseModel):
    """A CPU to compile for.

    Attributes
    ----------
    name : str
        What ``--target`` calls it; the name of its file.
    description : str
        Which machines it stands for.
    triple, mcpu : str
        LLVM's names of the platform and of the processor.
    mattr : tuple of str
        LLVM features switched on (``+name``) or off (``-name``) beside those of `mcpu`.
    cpu_features : tuple of str
        What the machine must have, spelt as in ``/proc/cpuinfo``.
    cores : int
        Cores that the network is expected to run on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    cores: Annotated[int, Field(ge=1, le=1024)] = 4

    @property
    def architecture(self) -> Literal["x86_64", "aarch64"]:
        """Instruction set, as uname spells it."""
        return "aarch64" if self.triple.startswith(("aarch64", "arm64")) else "x86_64"

    def to_tvm(self) -> tvm.target.Target:
        """Return TVM's target.

        The number of cores is always given: TVM would take this machine's for it.

        Raises
        ------
        UserError
            When LLVM does not know the processor.
        """
        import tvm

        known = tvm.target.codegen.llvm_get_cpu_archlist(tvm.target.Target({"kind": "llvm", "mtriple": self.triple}))
        if self.mcpu not in {str(name) for name in known}:
            raise UserError(f"target {self.name}: LLVM knows no processor '{self.mcpu}' for {self.triple}; correct its mcpu")
        return tvm.target.Target(
            {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu, "mattr": list(self.mattr), "num-cores": self.cores}
        )


def known_targets() -> dict[str, Path]:
    """Return the target files by name; a user's ``./targets`` hides shipped ones of the same name."""
    found: dict[str, Path] = {}
    for root in reversed(search_roots()):
        found.update({path.stem: path for path in sorted((root / "targets").glob("*.toml"))})
    return dict(sorted(found.items()))


def load_target(name: str) -> TargetSpec:
    """Return a target by name, ``native`` for this machine, or from a path to a ``.toml`` file.

    Raises
    ------
    UserError
        When there is no such target, or its file is not valid.
    """
    if name == NATIVE:
        from enet_tvm.targets.native import native_target

        return native_target()
    files = known_targets()
    path = Path(name) if name.endswith(".toml") else files.get(name)
    if path is None or not path.is_file():
        raise UserError(f"there is no target '{name}'; known are {', '.join([NATIVE, *files])}, or give a path to a .toml file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return TargetSpec.model_validate({"name": path.stem, **content})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is not readable TOML ({error}); correct it") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}; correct it") from error
