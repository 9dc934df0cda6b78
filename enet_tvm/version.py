"""Versions: this package's own, and the TVM stack it was tested with."""

from __future__ import annotations

from importlib import metadata

from enet_tvm.errors import UserError

__version__ = "0.1.0"

TESTED_STACK = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}


def stack_versions() -> dict[str, str]:
    """Return the installed version of each distribution of the TVM stack ("missing" if it is not there)."""
    versions = {}
    for name in TESTED_STACK:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def check_stack() -> None:
    """Refuse a TVM whose ABI was not tested: a mismatched pair crashes later, without a word.

    Raises
    ------
    UserError
        When the installed apache-tvm and apache-tvm-ffi are not the pair this release was tested with.
    """
    installed = stack_versions()
    if installed != TESTED_STACK:
        have = ", ".join(f"{name} {version}" for name, version in installed.items())
        want = " ".join(f"{name}=={version}" for name, version in TESTED_STACK.items())
        raise UserError(f"this release was tested with another TVM than the installed one ({have}); run: pip install {want}")
